package server

import (
	"net/http"
	"time"
)

// A Stream is an answer that goes on. It ends if its peer does not read for
// writeTimeout while something waits to be written.
type Stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// NewStream begins the answer to r.
func NewStream(w http.ResponseWriter, r *http.Request, contentType string) Stream {
	if c := connOf(r.Context()); c != nil {
		c.setStream()
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	s := Stream{w, http.NewResponseController(w)}
	_, _ = s.Write(nil) // the header goes out; a peer that has gone fails the next write, too
	return s
}

// Write sends p at once.
func (s Stream) Write(p []byte) (int, error) {
	if err := s.out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.out.Flush()
}
