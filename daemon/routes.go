package daemon

import (
	"fmt"
	"net/http"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
)

// An api is the daemon as its routes see it.
type api struct{ *Daemon }

// routes are those of PROTOCOL.md section 2.
func (d *Daemon) routes() http.Handler {
	a := api{d}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET " + ipc.RouteToken:               a.handleToken,
		"GET " + ipc.RouteAuth:                a.handleAuth,
		"POST " + ipc.RouteDialect + "{name}": a.handleDialect,
		"GET " + ipc.RouteStatus:              a.handleStatus,
		"GET " + ipc.RouteCallers:             a.handleCallers,
		"GET " + ipc.RouteEvents:              a.handleEvents,
		"POST " + ipc.RouteRefresh:            a.handleRefresh,
		"POST " + ipc.RouteRejected:           a.handleRejected,
		"POST " + ipc.RouteAdopt:              a.handleAdopt,
		"POST " + ipc.RouteForget:             a.handleForget,
		"POST " + ipc.RouteLock:               a.handleLock,
		"POST " + ipc.RouteUnlock:             a.handleUnlock,
		"POST " + ipc.RouteProtect:            a.handleProtect,
		"POST " + ipc.RouteStore:              a.handleStore,
		"/":                                   noRoute,
	} {
		mux.HandleFunc(pattern, handle)
	}
	return narrator{d}.audited(mux)
}

func noRoute(w http.ResponseWriter, r *http.Request) {
	fail(w, badRequest("there is no "+r.Method+" "+r.URL.Path))
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

// find returns the token that q asks for.
func (a api) find(w http.ResponseWriter, r *http.Request, q query) (dialect.Token, *ipc.Problem) {
	p, problem := a.asks(w, q.profile)
	if problem != nil {
		return dialect.Token{}, problem
	}
	if q.account {
		secret, expiry, err := p.AccountToken(r.Context())
		return dialect.Token{Profile: p.Name(), Value: secret.Reveal(), Expiry: expiry, Generation: p.Generation()}, wire(err)
	}
	t, err := p.Token(r.Context(), q.minTTL)
	return dialect.Token{
		Profile: p.Name(), Value: t.Value, IssuedAt: t.IssuedAt, Expiry: t.Expiry, RefreshAt: t.RefreshAt,
		Generation: t.Generation, Stale: t.Stale,
	}, wire(err)
}

// asked returns the token that r asks for. If there is none it has answered.
func (a api) asked(w http.ResponseWriter, r *http.Request) (dialect.Token, bool) {
	q, problem := parseQuery(r)
	if problem != nil {
		fail(w, problem)
		return dialect.Token{}, false
	}
	t, problem := a.find(w, r, q)
	if problem != nil {
		fail(w, problem)
		return dialect.Token{}, false
	}
	tellToken(w, t)
	return t, true
}

func (a api) handleToken(w http.ResponseWriter, r *http.Request) {
	if t, ok := a.asked(w, r); ok {
		defer clear(t.Value)
		server.JSON(w, http.StatusOK, t.Answer())
	}
}

// handleAuth serves nginx's auth_request, which passes response headers on.
func (a api) handleAuth(w http.ResponseWriter, r *http.Request) {
	if t, ok := a.asked(w, r); ok {
		defer clear(t.Value)
		w.Header().Set("Authorization", "Bearer "+string(t.Value))
		server.Reply(w, http.StatusNoContent, "", nil)
	}
}

// handleRefresh replaces the access token now (PROTOCOL.md section 2.7).
func (a api) handleRefresh(w http.ResponseWriter, r *http.Request) {
	var body ipc.Named
	forProfile(a, w, r, &body, &body.Profile, func(p *profile.Profile) (any, *ipc.Problem) {
		err := p.Refresh(r.Context())
		if err == refresher.ErrTooSoon {
			return ipc.Refreshed{ProfileStatus: a.describe(p.Status()), Skipped: true}, nil
		}
		return ipc.Refreshed{ProfileStatus: a.describe(p.Status())}, wire(err)
	})
}

// handleRejected takes a caller's word that the API has refused a token.
func (a api) handleRejected(w http.ResponseWriter, r *http.Request) {
	var body ipc.Rejected
	defer func() { clear(body.Token) }()
	forProfile(a, w, r, &body, &body.Profile, func(p *profile.Profile) (any, *ipc.Problem) {
		if len(body.Token) == 0 {
			return nil, badRequest("token is missing")
		}
		return ipc.RejectedAnswer{Profile: p.Name(), Checked: p.Reject(body.Token)}, nil
	})
}
