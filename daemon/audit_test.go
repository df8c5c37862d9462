package daemon

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

// atLevel sets the level for one test.
func atLevel(t *testing.T, l zerolog.Level) {
	t.Helper()
	old := zerolog.GlobalLevel()
	zerolog.SetGlobalLevel(l)
	t.Cleanup(func() { zerolog.SetGlobalLevel(old) })
}

func TestEachRequestIsOneLineAtDebugLevel(t *testing.T) {
	atLevel(t, zerolog.DebugLevel)
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/token", func(w http.ResponseWriter, _ *http.Request) {
		tellProfile(w, "work")
		server.Reply(w, http.StatusOK, "", []byte("a-token"))
	})
	mux.HandleFunc("POST /v1/dialect/{name}", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, &ipc.Problem{Code: ipc.CodeNeedsLogin, Detail: "a-secret"})
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { fail(w, errStopping) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fail(w, badRequest("no")) })
	h := d.logged(mux)
	for _, tt := range []struct {
		request string
		want    map[string]any
	}{
		{"GET /v1/token?profile=a-token", map[string]any{"route": "GET /v1/token", "status": 200.0, "profile": "work"}},
		{"POST /v1/dialect/header", map[string]any{"route": "POST /v1/dialect/{name}", "dialect": "header", "status": 403.0, "code": "needs_login"}},
		{"POST /v1/dialect/a-secret", map[string]any{"dialect": nil, "status": 403.0}},
		{"GET /a-secret", map[string]any{"route": "unknown", "status": 400.0, "code": "bad_request"}},
		{"GET /v1/status", map[string]any{"route": "GET /v1/status", "status": 0.0}}, // broken off
	} {
		log.Reset()
		method, target, _ := strings.Cut(tt.request, " ")
		func() {
			defer func() { _ = recover() }() // as net/http does
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, target, nil))
		}()
		var line map[string]any
		if err := json.Unmarshal(log.Bytes(), &line); err != nil {
			t.Fatalf("%s: %q, %v", tt.request, log.String(), err)
		}
		for k, v := range tt.want {
			if line[k] != v {
				t.Errorf("%s: %s is %v, want %v", tt.request, k, line[k], v)
			}
		}
		if line["level"] != "debug" || line["duration"] == nil || line["peer_pid"] == nil || strings.Contains(log.String(), "a-token") || strings.Contains(log.String(), "a-secret") {
			t.Errorf("%s: %s", tt.request, log.String())
		}
	}
}

func TestTheDebugLevelCostsNothingWhenItIsOff(t *testing.T) {
	atLevel(t, zerolog.InfoLevel)
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log)}
	var got http.ResponseWriter
	h := d.logged(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { got = w }))
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/token", nil)
	allocs := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
	if allocs != 0 || got != http.ResponseWriter(w) || log.Len() != 0 {
		t.Errorf("%v allocations, %T, %q", allocs, got, log.String())
	}
}
