package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/ipc"
)

// What a handler panics with stays in the process.
func TestAPanicTellsNoValue(t *testing.T) {
	const secret = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"
	for name, f := range map[string]func(){
		"string":      func() { panic(secret) },
		"error":       func() { panic(fmt.Errorf("exchange: %s", secret)) },
		"bytes":       func() { panic([]byte(secret)) },
		"Text":        func() { panic(ipc.Text(secret)) },
		"runtime":     func() { _ = []byte(secret)[len(secret)+len(name0()):] },
		"a map's key": func() { _ = map[any]int{}[[]any{secret}[0:1:1]] },
	} {
		path := filepath.Join(shortDir(t), "s")
		l, err := Listen(path)
		do(t, err)
		told := make(chan string, 10)
		s := New(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/late" {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte("half"))
			}
			f()
		}), Hooks{Panicked: func(what string, stack []byte) { told <- what + "\n" + string(stack) }})
		done := make(chan error, 1)
		go func() { done <- s.Serve() }()
		early := talk(t, path, "GET / HTTP/1.0\r\n\r\n")
		if !strings.Contains(early, "500 Internal") || !strings.Contains(early, `"code":"internal"`) {
			t.Errorf("%s: %q", name, early)
		}
		late := talk(t, path, "GET /late HTTP/1.0\r\n\r\n")
		if strings.Contains(late, "internal") {
			t.Errorf("%s: a problem in the middle of an answer: %q", name, late)
		}
		for range 2 {
			line := <-told
			if strings.Contains(line, secret) || !strings.Contains(line, "contain_test.go") {
				t.Errorf("%s: %s", name, line)
			}
		}
		if strings.Contains(early+late, secret) {
			t.Errorf("%s: the answer holds the value", name)
		}
		do(t, s.Close())
		do(t, <-done)
	}
}

// name0 keeps the compiler from seeing that a slice is out of bounds.
func name0() string { return "x" }
