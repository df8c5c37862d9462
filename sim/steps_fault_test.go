//go:build linux

package sim

import (
	"cmp"
	"net/http"
	"strconv"
	"time"

	"bloq-agent/accounts/sandbox"
)

func stepDisk(w *world, s step) {
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
	w.trouble.set("disk", is != "ok")
	if is == "slow" || is == "hung" { // it comes back by itself
		w.sleep(s.span("for", 1500*time.Millisecond))
		if w.diskIs != is {
			return
		}
		v.release()
		w.diskIs = "ok"
		w.trouble.set("disk", false)
		w.note("the disk answers again")
	}
}

var keyringStates = map[string]keyringState{
	"ok": keyringWorking, "locked": keyringLocked, "frozen": keyringFrozen, "dead": keyringDead, "nobus": keyringNoBus, "refused": keyringRefused,
}

func stepKeyring(w *world, s step) {
	is := s.arg("is")
	w.note("the keyring is %s", is)
	switch is {
	case "unheard", "diesold", "diesnew":
		w.keyring.setNext(map[string]saveOutcome{"unheard": saveUnheard, "diesold": saveDiesOld, "diesnew": saveDiesNew}[is])
		if is != "unheard" { // the item is saved then, and the daemon saves it once more
			w.trouble.set("keyring", true)
		}
		return
	}
	w.keyring.setNext(saveDone)
	w.keyring.set(keyringStates[is])
	w.trouble.set("keyring", is != "ok")
}

func stepNet(w *world, s step) {
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

func stepFault(w *world, s step) {
	n, _ := strconv.Atoi(cmp.Or(s.arg("n"), "1"))
	w.note("the endpoint: %s", s)
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for range n {
		w.api.faults = append(w.api.faults, faultKinds[s.arg("kind")])
	}
}

// stepRevoke ends a login at the endpoint.
func stepRevoke(w *world, s step) {
	p := w.person(s.profile)
	if p.inForce == nil {
		return
	}
	w.note("%s is revoked", p.inForce.title())
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for _, t := range p.inForce.tokens {
		t.revoked = true
	}
	p.inForce.deadBecause = "revoked"
}

func stepSuspend(w *world, s step) {
	w.slept = time.Now()
	w.clocks.sleep(s.span("for", time.Hour))
	for _, p := range w.people() {
		for _, l := range p.logins {
			l.accessSlept = true // how much of its life has passed is no longer plain
		}
	}
}

func stepClock(w *world, s step) {
	w.clocks.set(s.span("wrong", 0))
}
