package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

// handleDialect answers problems in the dialect too, with status 200: its
// caller is a tool that knows nothing of ours.
func (d *Daemon) handleDialect(w http.ResponseWriter, r *http.Request) {
	tool, ok := dialect.Lookup(r.PathValue("name"))
	if !ok {
		fail(w, badRequest(fmt.Sprintf("unknown form %q", r.PathValue("name"))))
		return
	}
	call, err := ipc.ParseCall(server.Body(r))
	if err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	a := d.speak(w, r, tool, call)
	defer clear(a.Stdout)
	w.Header().Set(ipc.HeaderExit, strconv.Itoa(a.Exit))
	w.Header().Set(ipc.HeaderStdout, strconv.Itoa(len(a.Stdout)))
	server.Reply(w, http.StatusOK, "application/octet-stream", append(a.Stdout, a.Stderr...))
}

// speak answers one call of a tool.
func (d *Daemon) speak(w http.ResponseWriter, r *http.Request, tool dialect.Dialect, call ipc.Call) dialect.Answer {
	q, settled := tool.Ask(call)
	tellHost(w, q.Target)
	request, problem := parseQuery(r)
	if problem != nil {
		tellCode(w, problem)
		return tool.Fail(q, problem)
	}
	if request.profile == "" {
		request.profile = q.Profile
	}
	if q.Rejected != nil {
		if p, _ := d.owner(request.profile, q); p != nil {
			d.reject(p, q.Rejected)
		}
	}
	if settled != nil {
		if settled.Exit != 0 {
			tellAnswer(w, string(ipc.CodeBadRequest))
		}
		return *settled
	}
	if tool.NamesHosts() {
		p, problem := d.owner(request.profile, q)
		if p == nil {
			tellAnswer(w, "nothing")
			tellCode(w, problem)
			return nothing(tool, q, problem)
		}
		request.profile = p.name
		q.Hosts, q.Username = d.hosts(p.name), d.config.Load().Profiles[p.name].DockerUsername
		if q.Username == "" {
			q.Username = "bloq"
		}
	}
	t, problem := d.answerToken(w, r, request)
	abortIfStopping(problem)
	if problem != nil {
		tellCode(w, problem)
		return tool.Fail(q, problem)
	}
	defer clear(t.Value)
	tellToken(w, t)
	return tool.Render(q, t)
}

// nothing tells the tool to ask somebody else, and a person why, if it is not
// just that the host is another's. A mistake of ours must not break a push to
// some other host.
func nothing(tool dialect.Dialect, q dialect.Question, problem *ipc.Problem) dialect.Answer {
	a := tool.Nothing(q)
	if problem != nil {
		token, _ := dialect.Lookup("token") // it has the helper's own words
		a.Stderr = token.Fail(q, problem).Stderr
	}
	return a
}

// owner is the profile whose token q's target may be given, or nil. A profile
// that is named must have the host; without a name it is the one that has it, and
// of several that is default or else the first.
func (d *Daemon) owner(name string, q dialect.Question) (*profile, *ipc.Problem) {
	if name != "" || q.AllHosts {
		p, problem := d.resolve(name)
		if problem != nil || !q.AllHosts && !d.hosts(p.name).Allows(q.Target) {
			return nil, problem
		}
		return p, nil
	}
	if _, problem := d.resolve(""); problem != nil && problem.Code == ipc.CodeConfiguration {
		return nil, problem
	}
	var first *profile
	for _, n := range d.names() {
		switch {
		case !d.hosts(n).Allows(q.Target):
		case n == "default":
			return d.profile(n), nil
		case first == nil:
			first = d.profile(n)
		}
	}
	return first, nil
}

// hosts are the servers that a profile's tokens may be given to: the
// configuration's, else the one of its Nodes API.
func (d *Daemon) hosts(name string) dialect.Hosts {
	c := d.config.Load()
	if list := c.Profiles[name].Hosts; list != nil {
		return list
	}
	return dialect.HostOf(c.endpoints(d.facts(name)).Nodes)
}

// rejectGap is the least time between two refreshes for tokens that servers are
// said to have refused. A server that refuses every token must not make every
// request an exchange.
const rejectGap = time.Minute

// handleRejected takes a caller's word that the API has refused a token.
func (d *Daemon) handleRejected(w http.ResponseWriter, r *http.Request) {
	var body ipc.Rejected
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	defer clear(body.Token)
	p, problem := d.asks(w, body.Profile)
	if problem == nil && len(body.Token) == 0 {
		problem = badRequest("token is missing")
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, ipc.RejectedAnswer{Profile: p.name, Checked: d.reject(p, body.Token)})
}

// reject refreshes beside its caller if token is the one that is served, and
// reports whether it does. Any other has been replaced already, or was never
// ours.
func (d *Daemon) reject(p *profile, token []byte) bool {
	s := p.state.Load()
	if s.refresher == nil || !s.refresher.Snapshot().Holds(token) {
		return false
	}
	now := int64(d.clock.Boottime())
	last := p.rejected.Load()
	if last != 0 && now-last < int64(rejectGap) || !p.rejected.CompareAndSwap(last, now) {
		return false
	}
	d.log.Info().Str("profile", p.name).Msg("a server is said to have refused the token; refreshing")
	go func() { // ends with the exchange that it joins, or the daemon
		ctx, cancel := context.WithTimeout(d.ctx, rejectGap)
		defer cancel()
		_, _ = s.refresher.Refresh(ctx) // its loop tells what came of it
	}()
	return true
}
