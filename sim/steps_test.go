package sim

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store"
)

// verbs are the steps. Each runs in a goroutine of its own, in the bubble.
var verbs map[string]func(*world, step)

func init() { // a literal would refer to itself
	verbs = map[string]func(*world, step){
		"login": login_, "logout": logout, "move": move, "lock": lock, "unlock": unlock, "refresh": refreshNow,
		"ask": ask, "git": git, "rejected": rejected, "status": status, "reload": reload, "hint": hint,
		"start": begin, "kill": kill, "stop": stop, "power": power, "second": second,
		"pass": pass, "suspend": suspend, "clock": setClock,
		"disk": disk, "keyring": keyring, "net": network, "fault": fault, "revoke": revoke,
		"replace": replace, "backup": takeBackup, "restore": restore, "copy": copyItem, "putback": putBack, "version": version,
		"calm": calm,
	}
}

func pass(w *world, s step) { w.sleep(s.span("for", time.Minute)) }
func suspend(w *world, s step) {
	w.slept = time.Now()
	w.clocks.sleep(s.span("for", time.Hour))
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.freshIn = nil
		}
	}
}

func setClock(w *world, s step) {
	w.clocks.set(s.span("wrong", 0))
}

// login_ is `bloq-agent login`, or with how=token `add --refresh-token-stdin`.
func login_(w *world, s step) {
	p := w.person(s.profile)
	l := &login{profile: p, number: len(p.logins) + 1, store: s.arg("store"), keep: s.has("keep"), from: time.Now()}
	p.logins = append(p.logins, l)
	before, sure := p.now, p.sure
	p.begins()
	access, refresh := w.api.keys(l)
	l.bought = w.clocks.true()
	body := ipc.Adopt{
		Profile: p.name, Store: l.store, ClientID: l.clientID, RefreshToken: ipc.Text(refresh),
		LoginURL: "http://127.0.0.1:1/auth", TokenURL: "http://127.0.0.1:1/auth/token", KeysURL: "http://127.0.0.1:1/users/me/client-keys",
		NodesURL: "https://" + p.name + ".nodes.example",
	}
	if l.keep {
		body.ClientSecret = ipc.Text(l.clientSecret)
	}
	if s.arg("how") != "token" {
		body.AccessToken, body.IssuedAt = ipc.Text(access), w.clocks.Now()
	}
	a := w.ask(request{method: "POST", path: ipc.RouteAdopt, body: body, wait: 30 * time.Second})
	w.note("login %s: %s", l.title(), a.word())
	switch {
	case a.broken:
		p.ends(a.end, before, false)
	case a.ok():
		if before != nil && !p.mixed {
			before.until = a.end
		}
		if s.arg("how") != "token" {
			l.freshIn, l.fresh = a.from, l.bought.Add(w.ttl)
		}
		p.ends(a.end, l, true)
	default:
		l.refused = w.trouble.since(w, l.from)
		if !p.mixed && (before != nil || !l.refused) {
			l.until = a.end
		}
		p.ends(a.end, before, sure)
	}
	if a.broken || a.ok() {
		return
	}
	w.refusedFor(s, a)
}

// refusedFor checks that what was refused had a reason.
func (w *world) refusedFor(s step, a answer) {
	if a.problem.Code == ipc.CodeInternal && !w.trouble.since(w, a.start) {
		w.violated("no defect", "%s: %s", s, a.problem.Detail)
	}
}

func logout(w *world, s step) {
	p := w.person(s.profile)
	before, sure := p.now, p.sure
	p.begins()
	a := w.ask(request{method: "POST", path: ipc.RouteForget, body: ipc.Named{Profile: p.name}, wait: 30 * time.Second})
	w.note("logout %s: %s %s", p.name, a.word(), a.problem.Detail)
	switch {
	case a.broken:
		p.ends(a.end, before, false)
	case strings.Contains(a.problem.Detail, "logs in again"):
		p.ends(a.end, before, false)
	case a.ok(), strings.Contains(a.problem.Detail, "logged out, but"):
		if !p.mixed {
			for _, l := range p.logins {
				if l.until.IsZero() {
					l.until = a.end
				}
			}
		}
		p.ends(a.end, nil, true)
	case a.problem.Code == ipc.CodeUnknownProfile, a.problem.Code == ipc.CodeNeedsLogin, a.problem.Code == ipc.CodeConfiguration:
		p.ends(a.end, before, sure)
	default:
		p.ends(a.end, before, false)
	}
	w.refusedFor(s, a)
}

func move(w *world, s step) {
	p := w.person(s.profile)
	p.begins()
	l, sure := p.now, p.sure
	a := w.ask(request{method: "POST", path: ipc.RouteStore, body: ipc.Move{Profile: p.name, To: s.arg("to")}, wait: 30 * time.Second})
	w.note("move %s to %s: %s", p.name, s.arg("to"), a.word())
	if a.ok() && l != nil && !p.mixed {
		l.store = s.arg("to")
	}
	p.ends(a.end, l, sure && !a.broken)
	w.refusedFor(s, a)
}

func lock(w *world, s step) {
	d := w.door(true)
	a := w.ask(request{method: "POST", path: ipc.RouteLock, body: ipc.Lock{Force: s.has("force")}, wait: 30 * time.Second})
	d.end, d.ok = a.end, a.ok()
	w.note("lock: %s %s", a.word(), a.problem.Detail)
	w.overtaken(d, a)
	if s.has("force") {
		w.dropped()
	}
	w.trouble.locked(w)
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.freshIn = nil // it is dropped
		}
		p.memoryIsGone()
	}
}

// dropped: a lock by force leaves no refresh token in memory.
func (w *world) dropped() {
	for _, p := range w.people() {
		for _, l := range p.logins {
			if l.store == "memory" || l.store == "" {
				l.gone = "lock by force"
			}
			if w.trouble.since(w, time.Now()) {
				l.spent = "lock by force"
			}
		}
	}
}

func unlock(w *world, _ step) {
	d := w.door(false)
	a := w.ask(request{method: "POST", path: ipc.RouteUnlock, body: ipc.Passphrase{}, wait: 30 * time.Second})
	d.end, d.ok = a.end, a.ok()
	w.note("unlock: %s %s", a.word(), a.problem.Detail)
	w.overtaken(d, a)
	if a.ok() {
		w.trouble.unlocked(w)
	}
}

// overtaken: who is told that another wish came later can see that one did.
func (w *world) overtaken(d *door, a answer) {
	if !strings.Contains(a.problem.Detail, "came after it") {
		return
	}
	for _, other := range w.doors {
		// Which of two that began within a millisecond came first nobody knows.
		if other.lock != d.lock && other.start.Add(time.Millisecond).After(d.start) {
			return
		}
	}
	w.violated("the last of lock and unlock decides", "%s", a.problem.Detail)
}

func (w *world) door(lock bool) *door {
	d := &door{lock: lock, start: time.Now()}
	w.doors = append(w.doors, d)
	return d
}

func refreshNow(w *world, s step) {
	p := w.person(s.profile)
	a := w.ask(request{method: "POST", path: ipc.RouteRefresh, body: ipc.Named{Profile: p.name}, wait: s.span("wait", 10*time.Second), cancel: s.span("cancel", 0)})
	w.note("refresh %s: %s", p.name, a.word())
	w.inTime(a, s.span("wait", 10*time.Second))
	w.refusedFor(s, a)
}

// ask is the helper, n times at once.
func ask(w *world, s step) {
	n, _ := strconv.Atoi(cmp.Or(s.arg("n"), "1"))
	done := make(chan answer, n)
	wait := s.span("wait", 10*time.Second)
	quick := w.mustBeQuick(s)
	for nth := range n {
		go func() {
			w.pause("caller", strconv.Itoa(nth), time.Millisecond)
			done <- w.call(request{
				method: "GET", path: fmt.Sprintf("%s?profile=%s&min_ttl=%d", ipc.RouteToken, s.profile, int(s.span("ttl", 0).Seconds())),
				wait: wait, cancel: s.span("cancel", 0),
			})
		}()
	}
	words := map[string]int{}
	var all []answer
	w.outside(func() {
		for range n {
			all = append(all, <-done)
		}
	})
	for _, a := range all {
		words[a.word()]++
		w.tookToken(s.profile, a, tokenOf(a))
		w.inTime(a, wait)
		if took := a.end.Sub(a.start); quick && !a.broken && took > 100*time.Millisecond {
			w.violated("a token in memory waits for nothing", "%s took %v", s, took)
		}
		w.refusedFor(s, a)
		if n == 1 {
			w.note("ask %s: %s %s", s.profile, a.word(), a.problem.Detail)
		}
	}
	if n > 1 {
		w.note("ask %s: %v", s.profile, words)
	}
}

// git asks for the token of a host, as git does.
func git(w *world, s step) {
	host := s.profile + ".nodes.example"
	call := ipc.AppendCall(nil, ipc.Call{Args: []string{"get"}, Stdin: []byte("protocol=https\nhost=" + host + "\n\n")})
	a := w.ask(request{method: "POST", path: ipc.RouteDialect + "git", body: call, wait: 10 * time.Second})
	_, rest, _ := strings.Cut(string(a.body), "password=")
	token, _, _ := strings.Cut(rest, "\n")
	w.tookToken(s.profile, a, token)
	w.note("git %s: %s %v", s.profile, a.word(), token != "")
	w.inTime(a, 10*time.Second)
}

func rejected(w *world, s step) {
	p := w.person(s.profile)
	a := w.ask(request{method: "GET", path: ipc.RouteToken + "?profile=" + p.name, wait: time.Second})
	if token := tokenOf(a); token != "" {
		w.ask(request{method: "POST", path: ipc.RouteRejected, body: ipc.Rejected{Profile: p.name, Token: ipc.Text(token)}, wait: time.Second})
	}
}

func status(w *world, _ step) {
	a := w.ask(request{method: "GET", path: ipc.RouteStatus, wait: 10 * time.Second})
	if a.ok() {
		w.mustHoldNoSecret("the status", string(a.body))
	}
	if took := a.end.Sub(a.start); took > 300*time.Millisecond { // a glance at the disk is cut off after 250 ms
		w.violated("status waits for no disk", "it took %v", took)
	}
}

func reload(w *world, s step) {
	i := w.running()
	if i == nil {
		return
	}
	if s.has("signal") {
		select {
		case i.reload <- nil:
		default:
		}
		return
	}
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

func hint(w *world, _ step) {
	if i := w.running(); i != nil && i.hint != nil {
		w.outside(i.hint)
	}
}

func begin(w *world, _ step) {
	if i := w.current; i != nil && !i.dead() {
		select {
		case <-i.ended:
		default:
			return
		}
	}
	i, err := w.run()
	if err != nil {
		w.note("the daemon does not start: %v", err)
		if !errors.Is(err, store.ErrInUse) {
			w.violated("the daemon starts", "%v", err)
		}
		return
	}
	if w.current != nil && !w.current.dead() { // another start was quicker
		i.kill()
		return
	}
	w.current = i
	w.trouble.set(w, "moved", false)
	w.outside(func() {
		select {
		case <-i.serving:
			w.note("daemon %d answers", i.number)
		case <-i.killed:
		case <-time.After(time.Minute):
			w.violated("the daemon starts", "it does not answer after a minute")
		}
	})
}

// second starts a daemon beside the one that runs, which must refuse.
func second(w *world, _ step) {
	if w.running() == nil {
		return
	}
	before := w.current
	i, err := w.run()
	if err == nil {
		if !before.dead() && before.moved.IsZero() && !w.stopping(before) && !w.trouble.since(w, start) && w.kept == nil {
			w.violated("one daemon has the state directory", "two run")
		}
		i.kill()
		return
	}
	w.note("a second daemon: %v", err)
}

func (w *world) stopping(i *instance) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.closed
}

func kill(w *world, _ step) {
	if i := w.current; i != nil && !i.dead() {
		w.note("daemon %d is killed", i.number)
		i.kill()
		w.judge(i, "killed")
	}
}

func stop(w *world, _ step) {
	i := w.current
	if i == nil || i.dead() {
		return
	}
	i.end()
	how := "stopped"
	w.outside(func() {
		select {
		case <-i.ended:
			w.note("daemon %d has stopped", i.number)
		case <-i.killed:
		case <-time.After(90 * time.Second): // TimeoutStopSec=, and then SIGKILL
			w.note("daemon %d did not stop", i.number)
			how = "killed"
		}
	})
	if !i.dead() {
		i.kill()
		w.judge(i, how)
	}
}

// power is a power loss, and the machine's next boot.
func power(w *world, _ step) {
	i := w.current
	running := i != nil && !i.dead()
	if running {
		i.kill()
	}
	w.note("the power fails")
	draw := func(key string) func(int) int {
		n := 0
		return func(most int) int {
			n++
			return int(hashOf(w.seed, "crash", key, len(w.instances), n) % uint64(max(1, most)))
		}
	}
	w.volume.crash(draw("disk"))
	w.keyring.crash(func(n int) int { return n - 1 }) // gnome-keyring syncs what it writes
	w.clocks.reboot()
	if running {
		w.judge(i, "without power")
	}
}

func disk(w *world, s step) {
	is := s.arg("is")
	w.diskIs = is
	v := w.volume
	v.setFull(is == "full")
	v.setReadOnly(is == "readonly")
	v.setFailing(map[bool]float64{true: 0.3}[is == "failing"])
	if is == "hung" || is == "slow" {
		v.hang(is == "slow")
	} else {
		v.release()
	}
	w.note("the disk is %s", is)
	w.trouble.set(w, "disk", is != "ok")
	if is == "slow" || is == "hung" { // it comes back by itself
		w.sleep(s.span("for", 1500*time.Millisecond))
		if w.diskIs != is {
			return
		}
		v.release()
		w.diskIs = "ok"
		w.trouble.set(w, "disk", false)
		w.note("the disk answers again")
	}
}

var keyringStates = map[string]keyringState{
	"ok": keyringWorking, "locked": keyringLocked, "frozen": keyringFrozen, "dead": keyringDead, "nobus": keyringNoBus, "refused": keyringRefused,
}

func keyring(w *world, s step) {
	is := s.arg("is")
	w.note("the keyring is %s", is)
	switch is {
	case "unheard", "diesold", "diesnew":
		w.nextFate = map[string]saveFate{"unheard": saveUnheard, "diesold": saveDiesOld, "diesnew": saveDiesNew}[is]
		w.trouble.set(w, "keyring", true)
		return
	}
	w.nextFate = saveDone
	w.keyring.set(keyringStates[is])
	w.trouble.set(w, "keyring", is != "ok")
}

func network(w *world, s step) {
	w.note("the network: %s", s)
	n, _ := strconv.Atoi(cmp.Or(s.arg("n"), "1"))
	e := w.api
	e.mu.Lock()
	defer e.mu.Unlock()
	switch s.arg("is") {
	case "down":
		e.down = true
	case "up":
		e.down, e.slow, e.lose, e.drop, e.spoil = false, 0, 0, 0, 0
	case "slow":
		e.slow = s.span("by", 3*time.Second)
	case "loses":
		e.lose = n
	case "drops":
		e.drop = n
	case "spoils":
		e.spoil = n
	}
}

// faultKinds are what the endpoint can answer instead. Those that a person must act
// on end in needs login, or configuration, by design.
var faultKinds = map[string]sandbox.Fault{
	"500":     {Kind: "status", Status: http.StatusInternalServerError},
	"503":     {Kind: "status", Status: http.StatusServiceUnavailable, Header: map[string]string{"Retry-After": "7"}},
	"429":     {Kind: "status", Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "120"}},
	"401":     {Kind: "status", Status: http.StatusUnauthorized},
	"403":     {Kind: "status", Status: http.StatusForbidden},
	"404":     {Kind: "status", Status: http.StatusNotFound},
	"302":     {Kind: "status", Status: http.StatusFound, Header: map[string]string{"Location": "http://127.0.0.1:2/"}},
	"page":    {Kind: "status", Status: http.StatusOK, Body: "<html>sign in to the hotel's network</html>"},
	"empty":   {Kind: "status", Status: http.StatusOK, Body: "{}"},
	"half":    {Kind: "half", Status: http.StatusOK, Body: `{"accessToken":"abc"}`},
	"hang":    {Kind: "hang"},
	"reset":   {Kind: "reset"},
	"invalid": {Kind: "status", Status: http.StatusBadRequest, Header: map[string]string{"Content-Type": "application/json"}, Body: `{"error":"invalid_client"}`},
}

func fault(w *world, s step) {
	n, _ := strconv.Atoi(cmp.Or(s.arg("n"), "1"))
	w.note("the endpoint: %s", s)
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for range n {
		w.api.faults = append(w.api.faults, faultKinds[s.arg("kind")])
	}
}

// revoke ends a login at the endpoint.
func revoke(w *world, s step) {
	p := w.person(s.profile)
	if p.now == nil {
		return
	}
	w.note("%s is revoked", p.now.title())
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for _, t := range p.now.tokens {
		t.revoked = true
	}
	p.now.spent = "revoked"
}
