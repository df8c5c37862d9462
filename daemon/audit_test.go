package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/wake"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"

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
	d := &Daemon{log: zerolog.New(&log), outside: &Outside{Clock: refresher.RuntimeClock()}}
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
	h := narrator{d}.audited(mux)
	for _, tt := range []struct {
		request string
		want    map[string]any
	}{
		{"GET /v1/token?profile=a-token", map[string]any{"route": "token", "status": 200.0, "profile": "work", "answer": "ok"}},
		{"POST /v1/dialect/header", map[string]any{"route": "header", "status": 403.0, "answer": "needs_login"}},
		{"POST /v1/dialect/a-secret", map[string]any{"route": "unknown", "status": 403.0}},
		{"GET /a-secret", map[string]any{"route": "unknown", "status": 400.0, "answer": "bad_request"}},
		{"GET /v1/status", map[string]any{"route": "status", "status": 0.0, "answer": "broken"}}, // broken off
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

// The ring has the answer of each request, in a word, once the client can read
// it, and bounded words for what was asked.
func TestEachRequestIsRecordedInAWord(t *testing.T) {
	atLevel(t, zerolog.InfoLevel)
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log), outside: &Outside{Clock: refresher.RuntimeClock()}}
	mux := http.NewServeMux()
	asked := 0
	said := func(route string, tell func(http.ResponseWriter)) {
		mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) {
			tell(w)
			w.WriteHeader(http.StatusOK)
			if _, recent := d.callers.List(); len(recent) != asked {
				t.Errorf("%s: the answer begins before it is recorded", route)
			}
		})
	}
	said("POST /v1/dialect/{name}", func(w http.ResponseWriter) {
		tellHost(w, dialect.ParseTarget("https://GitHub.com/a-secret?a-secret"))
		tellAnswer(w, "nothing")
	})
	said("GET /v1/token", func(w http.ResponseWriter) { tellProfile(w, "work"); tellToken(w, dialect.Token{}) })
	said("GET /v1/auth", func(w http.ResponseWriter) { tellToken(w, dialect.Token{Stale: true}) })
	said("POST /v1/rejected", func(w http.ResponseWriter) { tellHost(w, nil); tellCode(w, nil) })
	said("/", func(w http.ResponseWriter) { tellCode(w, badRequest("a-secret")) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { fail(w, errStopping) })
	h := narrator{d}.audited(mux)
	for _, tt := range []struct{ request, want string }{
		{"POST /v1/dialect/git", "git  github.com nothing"},
		{"POST /v1/dialect/a-secret", "unknown  github.com nothing"},
		{"GET /v1/token?profile=a-secret", "token work  token"},
		{"GET /v1/auth", "auth   stale"},
		{"POST /v1/rejected", "rejected   ok"},
		{"GET /v1/tokens", "unknown   bad_request"},
		{"GET /a-secret", "unknown   bad_request"},
		{"GET /v1/status", "status   broken"},
	} {
		method, target, _ := strings.Cut(tt.request, " ")
		asked++
		func() {
			defer func() { _ = recover() }() // as net/http does
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, target, nil))
		}()
		_, recent := d.callers.List()
		if q := recent[0]; q.Asked+" "+q.Profile+" "+q.Host+" "+q.Answer != tt.want {
			t.Errorf("%s: %+v, want %s", tt.request, q, tt.want)
		}
	}
	if all := fmt.Sprint(d.callers.List()); strings.Contains(all, "a-secret") {
		t.Error(all)
	}
}

func TestNothingIsLoggedOfAnOrdinaryRequest(t *testing.T) {
	atLevel(t, zerolog.InfoLevel)
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log), outside: &Outside{Clock: refresher.RuntimeClock()}}
	h := narrator{d}.audited(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/token", nil)
	if allocs := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); allocs > 4 || log.Len() != 0 {
		t.Errorf("%v allocations, %q", allocs, log.String())
	}
}

// What the daemon asks of itself would fill the ring.
func TestTheDaemonsOwnRequestsAreNotRecorded(t *testing.T) {
	d := &Daemon{log: zerolog.Nop(), outside: &Outside{Clock: bootClock(t)}}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/callers", d.handleCallers)
	s := server.New(l, narrator{d}.audited(mux), server.Hooks{})
	go func() { _ = s.Serve() }()
	defer func() { _ = s.Close() }()
	for range 2 {
		if said := exchange(t, path, []byte("GET /v1/callers HTTP/1.0\r\n\r\n")); !bytes.HasSuffix(said, []byte("\n"+`{"callers":[],"refused":0,"recent":[]}`+"\n")) {
			t.Errorf("%s", said)
		}
	}
}

// bootClock tells the machine's uptime, as /proc does.
func bootClock(t *testing.T) refresher.Clock {
	t.Helper()
	clock, err := wake.NewClock()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = clock.Close() })
	return clock
}

// A change is logged with who asked for it; a question is not, at this level.
func TestChangesAreLoggedWithTheirPeer(t *testing.T) {
	atLevel(t, zerolog.InfoLevel)
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log), outside: &Outside{Clock: bootClock(t)}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go d.callers.Run(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/forget", func(w http.ResponseWriter, _ *http.Request) {
		tellProfile(w, "work")
		fail(w, &ipc.Problem{Code: ipc.CodeNeedsLogin, Detail: "no"})
	})
	mux.HandleFunc("POST /v1/adopt", func(w http.ResponseWriter, _ *http.Request) {
		tellQuestion(w, true)
		server.Reply(w, 200, "", nil)
	})
	mux.HandleFunc("POST /v1/lock", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	audited, handled := narrator{d}.audited(mux), make(chan struct{}, 3)
	s := server.New(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { handled <- struct{}{} }() // one of them panics
		audited.ServeHTTP(w, r)
	}), server.Hooks{})
	go func() { _ = s.Serve() }()
	defer func() { _ = s.Close() }()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	curl := exec.Command("curl", "-s", "--unix-socket", path, "-d", "", "http://x/v1/forget", "http://x/v1/adopt")
	if err := curl.Run(); err != nil {
		t.Fatal(err)
	}
	_ = exec.Command("curl", "-s", "--unix-socket", path, "-d", "", "http://x/v1/lock").Run() // it breaks
	for range cap(handled) {
		<-handled
	}
	_ = s.Close()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"route":"forget","status":403`) || !strings.Contains(lines[1], `"route":"lock","status":0`) {
		t.Fatalf("%s", log.String())
	}
	var line struct {
		PID     int    `json:"peer_pid"`
		Exe     string `json:"peer_exe"`
		Profile string `json:"profile"`
		Answer  string `json:"answer"`
	}
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || line.PID != curl.Process.Pid || filepath.Base(line.Exe) != "curl" || line.Profile != "work" || line.Answer != "needs_login" {
		t.Errorf("%+v, %v", line, err)
	}
}
