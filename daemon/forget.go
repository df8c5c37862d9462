package daemon

import (
	"context"
	"net/http"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/store"
)

// handleForget drops a profile and its secrets.
func (d *Daemon) handleForget(w http.ResponseWriter, r *http.Request) {
	var body ipc.Named
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	p, problem := d.asks(w, body.Profile)
	if problem == nil {
		problem = d.forget(context.WithoutCancel(r.Context()), p)
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, ipc.Named{Profile: p.name})
}

// forget deletes the secrets before the record: the other way round, a failure
// between the two would leave a year-long token that nothing knows of.
func (d *Daemon) forget(ctx context.Context, p *profile) *ipc.Problem {
	p.change.Lock()
	defer p.change.Unlock()
	if d.facts(p.name).ID == "" {
		return p.needsLogin("nothing to forget")
	}
	if err := d.dropLeftover(ctx, p); err != nil {
		problem, _ := p.storeProblem(err)
		return problem
	}
	old, facts := p.state.Load(), d.facts(p.name)
	old.halt()
	if facts.Store != "" {
		st, err := d.options.Stores.named(facts.Store, p.name)
		if err == nil {
			err = st.Delete(ctx, facts.ID)
		}
		if err != nil {
			d.resume(p, old)
			problem, _ := p.storeProblem(err)
			return problem
		}
	}
	if err := d.records.Remove(p.name); err != nil {
		d.resume(p, old)
		return &ipc.Problem{Code: ipc.CodeInternal, Detail: err.Error()}
	}
	d.intentOf(facts).done()
	old.wipe()
	p.set(&state{facts: store.Profile{Name: p.name}, problem: p.needsLogin("needs login")})
	files := d.settleSinks(p.name)
	p.kept.drop()
	d.tellKept(d.keepTokens())
	d.log.Info().Str("profile", p.name).Msg("forgot a login")
	d.hub.publish(ipc.Event{Time: time.Now(), Event: "forgotten", Profile: p.name})
	d.notifyStatus()
	return d.unremoved("forgot profile "+p.name, files)
}
