package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// longJWT is a JWT of nobody, good for years, that says what.
func longJWT(what string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(fmt.Sprintf(`{"iat":1700000000,"exp":%d,"what":%q}`, time.Now().Add(1000*time.Hour).Unix(), what))) + "." + part([]byte(what+what+what))
}

// served runs a whole daemon with a login at a socket, without a network.
func served(tb testing.TB, access, refresh string) (socket string) {
	tb.Helper()
	// Whatever URL is adopted, nobody answers there.
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		tb.Setenv(name, "http://127.0.0.1:1")
	}
	dir, err := os.MkdirTemp("", "bloq-fuzz-") // tb.TempDir can be too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	socket = filepath.Join(dir, "d", "s")
	l, err := server.Listen(socket)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := New(Options{
		Listener: l, StateDir: dir, ConfigPath: filepath.Join(dir, "config.toml"), Store: "memory", Log: zerolog.Nop(),
		Stores: profile.Stores{Keyring: store.NewKeyring(), File: store.NewFile(dir, store.NewKey(dir, "")), Memory: store.NewMemory()},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, nil) }() // ends with the test
	tb.Cleanup(func() {
		stop()
		<-ended
		_ = os.RemoveAll(dir)
	})
	exchange(tb, socket, []byte("GET "+ipc.RouteStatus+" HTTP/1.0\r\n\r\n")) // it serves now
	url := "http://127.0.0.1:1/"
	_, problem := api{d}.adopt(ipc.Adopt{
		Profile: "default", LoginURL: url, TokenURL: url, KeysURL: url, NodesURL: url, Store: "memory",
		RefreshToken: ipc.Text(refresh), AccessToken: ipc.Text(access), IssuedAt: time.Now(),
	})
	if problem != nil {
		tb.Fatal(problem.Detail)
	}
	return socket
}

// Whatever a peer sends to whatever route: the answer is whole and of the
// protocol, never a defect; the refresh token is in no answer, and the access
// token in none but of the routes that are there for it.
func FuzzAnAnswerIsOfTheProtocol(f *testing.F) {
	post := func(route, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nBloq-Wait: 50\r\nContent-Length: %d\r\n\r\n%s", route, len(body), body)
	}
	for _, route := range []string{
		ipc.RouteToken, ipc.RouteToken + "?profile=default&min_ttl=5m&kind=access", ipc.RouteToken + "?kind=account", ipc.RouteAuth,
		ipc.RouteStatus + "?profile=default", ipc.RouteCallers, ipc.RouteEvents, ipc.RouteLock, "/",
	} {
		f.Add([]byte("GET " + route + " HTTP/1.1\r\nHost: x\r\nBloq-Wait: 50\r\n\r\n"))
	}
	for _, request := range []string{
		post(ipc.RouteDialect+"json", "a1:x,e3:A=1,i0:,"), post(ipc.RouteRefresh, `{"profile":"default"}`), post(ipc.RouteRefresh, "{"), post(ipc.RouteForget, `{"profile":"b"}`),
		post(ipc.RouteStore, `{"profile":"default","to":"file"}`), post(ipc.RouteLock, "{}"), post(ipc.RouteUnlock, `{"passphrase":""}`), post(ipc.RouteProtect, "{}"),
		post(ipc.RouteAdopt, `{"profile":"b","check":true,"store":"memory"}`), post(ipc.RouteAdopt, `{"note":true,"client_id":"x","environment":"local"}`),
	} {
		f.Add([]byte(request))
	}
	access, refresh := longJWT("access"), longJWT("refresh")
	socket := served(f, access, refresh)
	if said := exchange(f, socket, []byte("GET "+ipc.RouteToken+" HTTP/1.0\r\n\r\n")); !bytes.Contains(said, []byte(access)) {
		f.Fatalf("there is no token to look for: %s", said)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		if bytes.Contains(request, []byte(`"passphrase":"`)) && bytes.Contains(request, []byte("protect")) {
			t.Skip("to put a key under a passphrase takes a second, on purpose")
		}
		said := exchange(t, socket, request)
		if bytes.Contains(said, []byte(refresh)) {
			t.Fatalf("the refresh token: %s", said)
		}
		tokens := bytes.Contains(request, []byte("/v1/token")) || bytes.Contains(request, []byte("/v1/auth")) || bytes.Contains(request, []byte("/v1/dialect/"))
		if !tokens && bytes.Contains(said, []byte(access)) {
			t.Fatalf("the access token: %s", said)
		}
		if len(said) > 0 {
			checkAnswer(t, said)
		}
	})
}

func exchange(tb testing.TB, socket string, request []byte) []byte {
	tb.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		tb.Fatalf("nobody listens any more: %v", err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = c.Write(request) // it may be refused in the middle
	_ = c.(*net.UnixConn).CloseWrite()
	said, _ := io.ReadAll(c) // a reset after the answer is no defect
	return said
}

// checkAnswer looks at the first of the answers to what may be several requests.
func checkAnswer(t *testing.T, said []byte) {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(said)), nil)
	if err != nil {
		t.Fatalf("%v: %.300q", err, said)
	}
	kind := answer.Header.Get("Content-Type")
	switch {
	case answer.StatusCode == http.StatusInternalServerError:
		t.Fatalf("a defect: %.500q", said)
	case answer.Header.Get("Cache-Control") == "":
		return // net/http's own, to what is no request
	case kind == "text/event-stream" || answer.StatusCode == http.StatusNoContent:
	case answer.Header.Get("Content-Length") == "":
		t.Fatalf("no length: %.300q", said)
	case answer.StatusCode >= 400 && (kind != "application/problem+json" || answer.Header.Get(ipc.HeaderExit) == ""):
		t.Fatalf("an error that is no problem: %.300q", said)
	case answer.StatusCode == 200 && !strings.HasPrefix(kind, "application/"):
		t.Fatalf("%.300q", said)
	}
}
