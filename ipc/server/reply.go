package server

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"bloq-agent/ipc"
)

var quiet = log.New(io.Discard, "", 0)

// Reply writes a whole answer, and clears body, which may hold a token.
func Reply(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	if status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	// A token must not outlive its answer in some proxy's cache.
	h.Set("Cache-Control", "no-store")
	// A peer that does not read its answer holds up only its own connection,
	// and that not for long. The error is a connection's without deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	// The peer is gone if this fails; there is nobody to tell.
	_, _ = w.Write(body)
	clear(body)
}

// JSON writes v. v must be encodable.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Problem(w, ipc.Problem{Code: ipc.CodeInternal, Detail: "answer cannot be encoded"})
		return
	}
	Reply(w, status, "application/json", append(body, '\n'))
}

// Problem writes p as application/problem+json (RFC 9457). Code and Detail are
// the caller's; the rest follows from Code.
func Problem(w http.ResponseWriter, p ipc.Problem) {
	p.Type = "about:blank"
	p.Status = p.Code.Status()
	p.Title = http.StatusText(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		body = nil
	}
	w.Header().Set(ipc.HeaderExit, strconv.Itoa(p.Code.Exit()))
	Reply(w, p.Status, "application/problem+json", append(body, '\n'))
}
