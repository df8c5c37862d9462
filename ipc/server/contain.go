package server

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"

	"bloq-agent/ipc"
)

// contain ends a request whose handler panics, and the rest goes on. net/http
// would print the value, which may hold a secret.
func contain(h http.Handler, told func(what string, stack []byte)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracker{ResponseWriter: w}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v != http.ErrAbortHandler {
				if told != nil {
					told(whatPanicked(v), debug.Stack())
				}
				if !t.begun {
					w.Header().Set("Connection", "close")
					Problem(w, ipc.Problem{Code: ipc.CodeInternal, Detail: "the daemon has a defect; its log says where"})
					return
				}
			}
			panic(http.ErrAbortHandler) // the answer must not look whole
		}()
		h.ServeHTTP(t, r)
	})
}

// whatPanicked is the text of the runtime's own panics, which name types,
// indices and lengths, and otherwise only the value's type.
func whatPanicked(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("%T", v)
}

// A tracker knows whether an answer has begun.
type tracker struct {
	http.ResponseWriter
	begun bool
}

func (t *tracker) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracker) Write(b []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }
