package daemon

import (
	"net/http"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

// logged tells of each request at debug level, and of nothing that the peer
// could have put there. At any other level it costs one look at the level.
func (d *Daemon) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if zerolog.GlobalLevel() > zerolog.DebugLevel {
			h.ServeHTTP(w, r)
			return
		}
		seen, ok := w.(*audit)
		if !ok {
			seen = &audit{ResponseWriter: w}
		}
		start := time.Now()
		// Deferred, because a handler may break the connection by a panic.
		defer func() { d.logRequest(r, seen, time.Since(start)) }()
		h.ServeHTTP(seen, r)
	})
}

func (d *Daemon) logRequest(r *http.Request, seen *audit, took time.Duration) {
	e := d.log.Debug().Int("status", seen.status) // 0: the connection was broken
	if r.Pattern == "/" {
		e = e.Str("route", "unknown")
	} else {
		e = e.Str("route", r.Pattern)
	}
	if name := r.PathValue("name"); name != "" {
		if _, known := dialect.Lookup(name); known {
			e = e.Str("dialect", name)
		}
	}
	if seen.profile != "" {
		e = e.Str("profile", seen.profile)
	}
	if seen.code != "" {
		e = e.Str("code", string(seen.code))
	}
	e.Str("duration", took.Round(time.Microsecond).String()).Int("peer_pid", server.PeerOf(r.Context()).PID).Msg("request")
}

// An audit is a ResponseWriter that remembers what logRequest and logChange
// tell.
type audit struct {
	http.ResponseWriter
	status   int
	profile  string
	code     ipc.Code
	question bool // nothing was to change
}

func (a *audit) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *audit) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *audit) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// These do nothing unless w is an audit.
func tellProfile(w http.ResponseWriter, name string) {
	if a, ok := w.(*audit); ok {
		a.profile = name
	}
}

func tellQuestion(w http.ResponseWriter, is bool) {
	if a, ok := w.(*audit); ok {
		a.question = is
	}
}

func tellCode(w http.ResponseWriter, p *ipc.Problem) {
	if a, ok := w.(*audit); ok && p != nil {
		a.code = p.Code
	}
}
