package daemon

import (
	"fmt"
	"net/http"
	"strconv"

	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

// handleDialect answers problems in the dialect too, with status 200: its caller
// is a tool that knows nothing of ours.
func (a api) handleDialect(w http.ResponseWriter, r *http.Request) {
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
	out := a.speak(w, r, tool, call)
	defer clear(out.Stdout)
	w.Header().Set(ipc.HeaderExit, strconv.Itoa(out.Exit))
	w.Header().Set(ipc.HeaderStdout, strconv.Itoa(len(out.Stdout)))
	server.Reply(w, http.StatusOK, "application/octet-stream", append(out.Stdout, out.Stderr...))
}

// speak answers one call of a tool.
func (a api) speak(w http.ResponseWriter, r *http.Request, tool dialect.Dialect, call ipc.Call) dialect.Answer {
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
		if p, _ := a.owner(request.profile, q); p != nil {
			p.Reject(q.Rejected)
		}
	}
	if settled != nil {
		if settled.Exit != 0 {
			tellAnswer(w, string(ipc.CodeBadRequest))
		}
		return *settled
	}
	if tool.NamesHosts() {
		p, problem := a.owner(request.profile, q)
		if p == nil {
			tellAnswer(w, "nothing")
			tellCode(w, problem)
			return nothing(tool, q, problem)
		}
		c := a.config.get()
		request.profile = p.Name()
		q.Hosts, q.Username = c.Hosts(p.Record()), c.Profiles[p.Name()].DockerUsername
		if q.Username == "" {
			q.Username = "bloq"
		}
	}
	t, problem := a.find(w, r, request)
	abortIfStopping(problem)
	if problem != nil {
		tellCode(w, problem)
		return tool.Fail(q, problem)
	}
	defer clear(t.Value)
	tellToken(w, t)
	return tool.Render(q, t)
}

// nothing tells the tool to ask another helper, and a person why, unless the host
// is just not ours. A mistake of ours must not break a push to some other host.
func nothing(tool dialect.Dialect, q dialect.Question, problem *ipc.Problem) dialect.Answer {
	out := tool.Nothing(q)
	if problem != nil {
		token, _ := dialect.Lookup("token") // it has the helper's own words
		out.Stderr = token.Fail(q, problem).Stderr
	}
	return out
}
