package daemon

import (
	"cmp"
	"net/http"
	"os"
	"strings"
	"time"

	"bloq-agent/daemon/callers"
	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

// changes are the routes that change what is kept. Each is logged with its caller.
var changes = map[string]bool{"adopt": true, "forget": true, "lock": true, "unlock": true, "protect": true, "store": true}

// An audit is a ResponseWriter that records its request once the answer begins:
// a stream can last for hours.
type audit struct {
	http.ResponseWriter
	request  *http.Request
	ring     *callers.Ring
	caller   *callers.Process
	record   ipc.Request
	status   int  // 0 until the answer begins
	question bool // nothing was to change
}

// audited records each request, and logs it: a change always, the rest at debug
// level.
func (n narrator) audited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, peer := time.Now(), server.PeerOf(r.Context())
		connected := n.outside.Clock.Boottime() - start.Sub(peer.Since)
		caller := n.callers.Meet(peer.PID, connected, strings.HasPrefix(r.URL.Path, ipc.RouteDialect))
		a := &audit{ResponseWriter: w, request: r, ring: &n.callers, caller: caller, record: ipc.Request{PID: peer.PID}}
		defer n.logRequest(a, start) // a handler may break the connection by a panic
		h.ServeHTTP(a, r)
	})
}

// WriteHeader records the request.
func (a *audit) WriteHeader(status int) {
	if a.status == 0 {
		a.begin("ok")
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *audit) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// begin records the request with answer, unless a handler has told another.
func (a *audit) begin(answer string) {
	a.record.Answer = cmp.Or(a.record.Answer, answer)
	a.record.Asked = strings.Clone(a.request.PathValue("name")) // not what else the peer has sent
	if _, known := dialect.Lookup(a.record.Asked); !known {
		_, route, _ := strings.Cut(strings.TrimSuffix(a.request.Pattern, "dialect/{name}"), " /v1/")
		a.record.Asked = cmp.Or(route, "unknown")
	}
	if a.record.PID != os.Getpid() { // the daemon asks itself nothing that counts
		a.ring.Add(a.caller, a.record)
	}
}

// logRequest logs nothing that peers choose, except names of programs and a host
// that a dialect has parsed.
func (n narrator) logRequest(a *audit, start time.Time) {
	took := time.Since(start).Round(time.Microsecond)
	if a.status == 0 {
		a.begin("broken")
	}
	q, level, message := a.record, zerolog.DebugLevel, "request"
	if changes[q.Asked] && !a.question {
		level, message = zerolog.InfoLevel, "a change was asked for"
		a.caller.Wait()
	}
	e := n.log.WithLevel(level)
	if !e.Enabled() {
		return
	}
	a.caller.Name(&q)
	e.Str("route", q.Asked).Int("status", a.status).Str("answer", q.Answer).Int("peer_pid", q.PID)
	for _, field := range [][2]string{
		{"profile", q.Profile}, {"host", q.Host}, {"peer_exe", q.Executable}, {"peer_unit", q.Unit}, {"peer_for", q.For},
	} {
		if field[1] != "" {
			e.Str(field[0], field[1])
		}
	}
	e.Str("duration", took.String()).Msg(message)
}

// auditOf is w, except in tests.
func auditOf(w http.ResponseWriter) *audit {
	if a, ok := w.(*audit); ok {
		return a
	}
	return &audit{}
}

func tellProfile(w http.ResponseWriter, name string)    { auditOf(w).record.Profile = name }
func tellHost(w http.ResponseWriter, t *dialect.Target) { auditOf(w).record.Host = t.Address() }
func tellQuestion(w http.ResponseWriter, is bool)       { auditOf(w).question = is }
func tellAnswer(w http.ResponseWriter, word string)     { auditOf(w).record.Answer = word }

func tellToken(w http.ResponseWriter, t dialect.Token) {
	tellAnswer(w, map[bool]string{false: "token", true: "stale"}[t.Stale])
}

func tellCode(w http.ResponseWriter, p *ipc.Problem) {
	if p != nil {
		tellAnswer(w, string(p.Code))
	}
}

func (d *Daemon) handleCallers(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery != "" {
		fail(w, badRequest("this route has no parameters"))
		return
	}
	programs, requests := d.callers.List()
	server.JSON(w, http.StatusOK, ipc.Callers{Callers: programs, Refused: d.told.refusals.Load(), Recent: requests})
}
