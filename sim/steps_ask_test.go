//go:build linux

package sim

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bloq-agent/ipc"
)

func stepRefresh(w *world, s step) {
	p := w.person(s.profile)
	a := w.ask(request{method: "POST", path: ipc.RouteRefresh, body: ipc.Named{Profile: p.name}, wait: s.span("wait", 10*time.Second), cancel: s.span("cancel", 0)})
	w.note("refresh %s: %s", p.name, a.word())
	w.checkInTime(a, s.span("wait", 10*time.Second))
	w.checkRefreshed(p, a)
	w.checkNoDefect(s, a)
}

// stepAsk is the helper, n times at once.
func stepAsk(w *world, s step) {
	n, _ := strconv.Atoi(cmp.Or(s.arg("n"), "1"))
	done := make(chan answer, n)
	wait := s.span("wait", 10*time.Second)
	quick := w.tokenIsInMemory(s)
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
		w.checkToken(s.profile, a, tokenOf(a))
		w.checkLasts(a, s.span("ttl", 0))
		w.checkInTime(a, wait)
		if took := a.end.Sub(a.start); quick && !a.broken && took > 100*time.Millisecond {
			w.violated("a token in memory waits for nothing", "%s took %v", s, took)
		}
		w.checkNoDefect(s, a)
		if n == 1 {
			w.note("ask %s: %s %s", s.profile, a.word(), a.problem.Detail)
		}
	}
	if n > 1 {
		w.note("ask %s: %v", s.profile, words)
	}
}

// stepGit asks for the token of a host, as git does.
func stepGit(w *world, s step) {
	host := s.profile + ".nodes.example"
	call := ipc.AppendCall(nil, ipc.Call{Args: []string{"get"}, Stdin: []byte("protocol=https\nhost=" + host + "\n\n")})
	a := w.ask(request{method: "POST", path: ipc.RouteDialect + "git", body: call, wait: 10 * time.Second})
	_, rest, _ := strings.Cut(string(a.body), "password=")
	token, _, _ := strings.Cut(rest, "\n")
	w.checkToken(s.profile, a, token)
	w.note("git %s: %s %v", s.profile, a.word(), token != "")
	w.checkInTime(a, 10*time.Second)
	call = ipc.AppendCall(nil, ipc.Call{Args: []string{"get"}, Stdin: []byte("protocol=https\nhost=x" + host + "\n\n")})
	if a = w.ask(request{method: "POST", path: ipc.RouteDialect + "git", body: call, wait: time.Second}); strings.Contains(string(a.body), "password=") {
		w.violated("a token goes to its own host", "x%s was given one", host)
	}
}

func stepRejected(w *world, s step) {
	p := w.person(s.profile)
	a := w.ask(request{method: "GET", path: ipc.RouteToken + "?profile=" + p.name, wait: time.Second})
	if token := tokenOf(a); token != "" {
		w.ask(request{method: "POST", path: ipc.RouteRejected, body: ipc.Rejected{Profile: p.name, Token: ipc.Text(token)}, wait: time.Second})
	}
}

func stepStatus(w *world, _ step) {
	a := w.ask(request{method: "GET", path: ipc.RouteStatus, wait: 10 * time.Second})
	if a.ok() {
		w.mustHoldNoSecret("the status", string(a.body))
		w.checkStatus(a)
	}
	if took := a.end.Sub(a.start); took > 300*time.Millisecond { // a glance at the disk is cut off after 250 ms
		w.violated("status waits for no disk", "it took %v", took)
	}
}
