// Package server answers HTTP/1.1 on a Unix socket to programs of one user.
//
// It promises its handlers three things: the peer is a process of our own
// user (checked by SO_PEERCRED before a byte is read), the body is whole and
// within its limit, and the context ends shortly before the caller stops
// waiting. It promises callers a Content-Length on every answer, because
// net/http leaves it out for larger bodies to an HTTP/1.0 client, which would
// then take a cut token for a whole one.
package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"bloq-agent/ipc"
)

const (
	headerTimeout = 5 * time.Second  // for a request's line and headers, and again for its body
	idleTimeout   = 30 * time.Second // between the requests of one connection
	writeTimeout  = 10 * time.Second // for an answer that the caller does not read
)

// A Server serves one listener.
type Server struct {
	listener net.Listener
	guard    *guard // which the listener is
	http     http.Server
}

// Hooks tell what happens beside the answers. Each may be nil, and must not
// block.
type Hooks struct {
	Refused func(Peer)  // a peer of another user was closed unheard
	Trouble func(error) // a connection could not be accepted; the server goes on
	// Panicked is told of a handler's panic. What says no more than what kind it
	// was: the value itself may hold a secret.
	Panicked func(what string, stack []byte)
}

// New makes a server of l.
func New(l net.Listener, h http.Handler, hooks Hooks) *Server {
	g := newGuard(l, hooks)
	s := &Server{listener: g, guard: g}
	s.http = http.Server{
		Handler:           Handler(h, hooks),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		// net/http adds 4 KiB of its own to this figure.
		MaxHeaderBytes: ipc.MaxHeader - 4096,
		ConnContext:    withConn,
		ConnState: func(c net.Conn, state http.ConnState) {
			if ours, ok := c.(*conn); ok && state == http.StateIdle {
				ours.owe()
			}
		},
		// Its default writes to the process's log; what it has to say here
		// (resets, half requests) is the peer's doing.
		ErrorLog: quiet,
	}
	return s
}

// Handler is what a Server answers with: h behind what the package promises. It is
// for who needs no listener.
func Handler(h http.Handler, hooks Hooks) http.Handler {
	return contain(prepare(h), hooks.Panicked)
}

// Serve answers until Shutdown or Close. Its error is nil then.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Turns is how often the loop that accepts connections has turned. It makes the loop
// turn once more: if the next call returns the same, the loop stands still. Whatever
// peers do, this takes no connection and waits for none.
func (s *Server) Turns() uint64 {
	turns := s.guard.turns.Load()
	s.guard.nudge()
	return turns
}

// Shutdown stops listening and waits, as long as ctx allows, for the requests
// that are being answered.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// CloseIdle ends the connections that wait for another request. Their buffers
// hold what was answered last.
func (s *Server) CloseIdle() {
	s.http.SetKeepAlivesEnabled(false)
	s.http.SetKeepAlivesEnabled(true)
}

// Close ends everything at once.
func (s *Server) Close() error { return s.http.Close() }

// prepare reads the body and sets the deadlines, so that a handler holds
// nothing that the peer can delay.
func prepare(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		defer func() { clear(body) }() // it may hold a login
		if err != nil {
			// Otherwise net/http would wait for the rest, and without a limit.
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
			Problem(w, ipc.Problem{Code: ipc.CodeBadRequest, Detail: err.Error()})
			return
		}
		if c := connOf(r.Context()); c != nil && !c.complete() {
			panic(http.ErrAbortHandler) // closed a moment ago
		}
		wait, err := waitOf(r.Header.Get(ipc.HeaderWait))
		if err != nil {
			Problem(w, ipc.Problem{Code: ipc.CodeBadRequest, Detail: err.Error()})
			return
		}
		ctx := context.WithValue(r.Context(), goneKey{}, r.Context().Done())
		ctx, cancel := context.WithTimeout(ctx, wait-min(wait/10, 100*time.Millisecond))
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = &wholeBody{bytes.NewReader(body), body}
		h.ServeHTTP(w, r)
	})
}

// A wholeBody has arrived already.
type wholeBody struct {
	*bytes.Reader
	all []byte
}

func (*wholeBody) Close() error { return nil }

// Body is the whole body of r. It may hold secrets and is cleared when the
// handler returns, so a handler that needs a part for longer copies it.
func Body(r *http.Request) []byte {
	if b, ok := r.Body.(*wholeBody); ok {
		return b.all
	}
	return nil
}

type goneKey struct{}

// Gone is closed when the peer of r has gone, however long it said it would
// wait: for streams.
func Gone(r *http.Request) <-chan struct{} {
	gone, _ := r.Context().Value(goneKey{}).(<-chan struct{})
	return gone
}

var errBodyTooLong = errors.New("body is longer than 128 KiB")

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > ipc.MaxBody {
		return nil, errBodyTooLong
	}
	if r.Body == http.NoBody {
		return nil, nil
	}
	// Not http.Server.ReadTimeout: that one goes on running while the handler
	// waits for a refresh, and then ends its context.
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, err
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, ipc.MaxBody), r.ContentLength)
	if err != nil {
		clear(body)
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return nil, errBodyTooLong
		}
		return nil, errors.New("body did not arrive whole")
	}
	return body, rc.SetReadDeadline(time.Time{})
}

// readAll is io.ReadAll for what may hold secrets: if the length is known the
// bytes are never copied, and what it grew out of is cleared.
func readAll(r io.Reader, length int64) ([]byte, error) {
	body := make([]byte, 0, max(length, 0)+512)
	for {
		if len(body) == cap(body) {
			old := body
			body = append(body, 0)[:len(body)]
			clear(old)
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
}

// waitOf reads Bloq-Wait: milliseconds, the default if absent, at most
// ipc.MaxTimeout.
func waitOf(s string) (time.Duration, error) {
	if s == "" {
		return ipc.DefaultTimeoutMS * time.Millisecond, nil
	}
	ms, err := strconv.ParseUint(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New(ipc.HeaderWait + " is not a number of milliseconds")
	}
	return time.Duration(min(ms, uint64(ipc.MaxTimeout/time.Millisecond))) * time.Millisecond, nil
}
