package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
)

// routes are those of PROTOCOL.md section 2.
func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ipc.RouteToken, d.handleToken)
	mux.HandleFunc("GET "+ipc.RouteAuth, d.handleAuth)
	mux.HandleFunc("POST "+ipc.RouteDialect+"{name}", d.handleDialect)
	mux.HandleFunc("GET "+ipc.RouteStatus, d.handleStatus)
	mux.HandleFunc("GET "+ipc.RouteCallers, d.handleCallers)
	mux.HandleFunc("GET "+ipc.RouteEvents, d.handleEvents)
	mux.HandleFunc("POST "+ipc.RouteRefresh, d.handleRefresh)
	mux.HandleFunc("POST "+ipc.RouteRejected, d.handleRejected)
	mux.HandleFunc("POST "+ipc.RouteAdopt, d.handleAdopt)
	mux.HandleFunc("POST "+ipc.RouteForget, d.handleForget)
	mux.HandleFunc("POST "+ipc.RouteLock, d.handleLock)
	mux.HandleFunc("POST "+ipc.RouteUnlock, d.handleUnlock)
	mux.HandleFunc("POST "+ipc.RouteProtect, d.handleProtect)
	mux.HandleFunc("POST "+ipc.RouteStore, d.handleStore)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, badRequest("there is no "+r.Method+" "+r.URL.Path))
	})
	return d.audited(mux)
}

// query is what a request for a token may say.
type query struct {
	profile string
	minTTL  time.Duration
	account bool
}

func parseQuery(r *http.Request) (query, *ipc.Problem) {
	q := query{minTTL: refresher.DefaultMinTTL}
	// The strict form: URL.Query drops what it cannot read.
	values, err := parseValues(r.URL.RawQuery)
	if err != nil {
		return q, badRequest(err.Error())
	}
	for key, value := range values {
		switch key {
		case "profile":
			q.profile = value
		case "min_ttl":
			if q.minTTL, err = ipc.ParseDuration(value); err != nil {
				return q, badRequest(fmt.Sprintf("min_ttl %q: %v", value, err))
			}
		case "kind":
			if value != "access" && value != "account" {
				return q, badRequest(fmt.Sprintf("kind %q: access or account", value))
			}
			q.account = value == "account"
		default:
			return q, badRequest(fmt.Sprintf("unknown parameter %q", key))
		}
	}
	return q, nil
}

// answerToken finds the token that r asks for.
func (d *Daemon) answerToken(w http.ResponseWriter, r *http.Request, q query) (dialect.Token, *ipc.Problem) {
	p, problem := d.asks(w, q.profile)
	if problem != nil {
		return dialect.Token{}, problem
	}
	if q.account {
		return d.accountToken(r, p)
	}
	t, problem := d.token(r.Context(), p, q.minTTL)
	if problem != nil {
		return dialect.Token{}, problem
	}
	return dialect.Token{
		Profile: p.name, Value: t.Value, IssuedAt: t.IssuedAt, Expiry: t.Expiry, RefreshAt: t.RefreshAt,
		Generation: t.Generation, Stale: t.Stale,
	}, nil
}

func (d *Daemon) accountToken(r *http.Request, p *profile) (dialect.Token, *ipc.Problem) {
	s := d.recovered(r.Context(), p)
	if s.problem != nil {
		return dialect.Token{}, s.problem
	}
	now := time.Now()
	secret, expiry, ok := s.login.accountToken(now)
	if !ok {
		return dialect.Token{}, p.needsLogin("no account token: it lasts 12 hours from a login with a password")
	}
	return dialect.Token{Profile: p.name, Value: secret.Reveal(), Expiry: expiry, Generation: p.generation.Load()}, nil
}

// asked is the token that r asks for. If there is none it has answered already.
func (d *Daemon) asked(w http.ResponseWriter, r *http.Request) (dialect.Token, bool) {
	q, problem := parseQuery(r)
	if problem != nil {
		fail(w, problem)
		return dialect.Token{}, false
	}
	t, problem := d.answerToken(w, r, q)
	if problem != nil {
		fail(w, problem)
		return dialect.Token{}, false
	}
	tellToken(w, t)
	return t, true
}

func (d *Daemon) handleToken(w http.ResponseWriter, r *http.Request) {
	if t, ok := d.asked(w, r); ok {
		defer clear(t.Value)
		server.JSON(w, http.StatusOK, t.Answer())
	}
}

// handleAuth serves nginx's auth_request, which passes response headers on.
func (d *Daemon) handleAuth(w http.ResponseWriter, r *http.Request) {
	if t, ok := d.asked(w, r); ok {
		defer clear(t.Value)
		w.Header().Set("Authorization", "Bearer "+string(t.Value))
		server.Reply(w, http.StatusNoContent, "", nil)
	}
}

func (d *Daemon) handleRefresh(w http.ResponseWriter, r *http.Request) {
	var body ipc.Named
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	p, problem := d.asks(w, body.Profile)
	if problem != nil {
		fail(w, problem)
		return
	}
	s := d.recovered(r.Context(), p)
	if s.problem != nil {
		fail(w, s.problem)
		return
	}
	snapshot, err := s.refresher.Refresh(r.Context())
	switch {
	case err != nil:
		fail(w, &ipc.Problem{Code: ipc.CodeUnavailable, Detail: p.name + ": the token endpoint has not answered yet", Hint: "bloq-agent status"})
	case snapshot.Class != refresher.None:
		fail(w, p.problem(&refresher.Error{Class: snapshot.Class, Next: snapshot.NextAttempt(), Err: snapshot.Err}))
	default:
		server.JSON(w, http.StatusOK, d.profileStatus(p))
	}
}

// decode reads a JSON body strictly: an unknown member is a newer client's
// wish, and must not be dropped in silence. It is not a json.Decoder, which
// would keep a copy of the body, secrets included.
func decode(r *http.Request, v any) error {
	body := server.Body(r)
	var members map[string]skipped
	if err := json.Unmarshal(body, &members); err != nil {
		return errors.New("body is not the JSON that this route takes")
	}
	for name := range members {
		if !hasMember(v, name) {
			return fmt.Errorf("body: unknown field %q", name)
		}
	}
	err := json.Unmarshal(body, v)
	// The library's text quotes the value, which may be a secret.
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Errorf("body: %s must be a %s", typed.Field, typed.Type)
	}
	if err != nil {
		return errors.New("body is not the JSON that this route takes")
	}
	return nil
}

// A skipped is a value that nobody looks at.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }

// hasMember reports whether the struct that v points to has a field for name.
func hasMember(v any, name string) bool {
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if strings.EqualFold(tag, name) { // as the library does
			return true
		}
	}
	return false
}

func badRequest(detail string) *ipc.Problem {
	return &ipc.Problem{Code: ipc.CodeBadRequest, Detail: detail}
}

func fail(w http.ResponseWriter, p *ipc.Problem) {
	abortIfStopping(p)
	tellCode(w, p)
	server.Problem(w, *p)
}

// abortIfStopping breaks the connection without a byte, which makes a client
// ask again: the next daemon may be there by then.
func abortIfStopping(p *ipc.Problem) {
	if p == errStopping {
		panic(http.ErrAbortHandler)
	}
}
