package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// Of a lock and an unlock that are under way at the same time the one that came last
// decides, and what each program prints is true. With a passphrase an unlock takes
// 0.1 s. A login that only memory has outlives them all.
func TestTheLaterOfLockAndUnlockDecides(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start()
	w.login("-p", "kept", "--store", "file")
	w.login("-p", "held", "--store", "memory")
	w.must("correct horse\n", "bloq-agent", "store", "protect", "--passphrase-stdin")
	run := func(command string) result {
		if command == "lock" {
			return w.run("", "bloq-agent", "lock")
		}
		return w.run("correct horse\n", "bloq-agent", "unlock", "--passphrase-stdin")
	}
	overtaken := 0
	for round := range 12 {
		order := [2]string{"lock", "unlock"}
		if round%2 == 1 {
			order = [2]string{"unlock", "lock"}
		}
		if r := run(order[1]); r.code != 0 { // so that both have something to do
			t.Fatalf("%+v", r)
		}
		from := len(w.log.String())
		results := map[string]chan result{}
		for i, command := range order {
			done := make(chan result, 1)
			results[command] = done
			go func() { done <- run(command) }()
			if i == 0 {
				time.Sleep(time.Duration(10+80*round/11) * time.Millisecond)
			}
		}
		said := map[string]result{"lock": <-results["lock"], "unlock": <-results["unlock"]}
		asked := map[string]span{"lock": w.handled(from, "lock"), "unlock": w.handled(from, "unlock")}
		first, last := order[0], order[1]
		switch gap := asked[last].begin.Sub(asked[first].begin); {
		case gap < -orderTolerance:
			first, last = last, first
		case gap < orderTolerance:
			t.Logf("round %d: nobody knows which came last, %v", round, gap)
			continue
		}
		// The last one has what it wanted, and says so.
		if r := said[last]; r.code != 0 || r.stdout != last+"ed\n" {
			t.Errorf("round %d, %s came last: %+v", round, last, r)
		}
		for _, name := range []string{"kept", "held"} {
			if r := w.run("", "bloq-token", "-p", name); (r.code == 0) != (last == "unlock") {
				t.Errorf("round %d, %s came last: %+v", round, last, r)
			}
		}
		const held = "held: its refresh token stays in memory, because nothing else has it"
		if last == "lock" && !strings.Contains(said[last].stderr, held) {
			t.Errorf("round %d: lock does not say what it leaves: %+v", round, said[last])
		}
		// The other one had it too, or says what came after it. An unlock knows at its
		// end, a lock from its begin on.
		late := last == "unlock" || asked[last].begin.After(asked[first].middle())
		switch r := said[first]; {
		case r.code == 0 && r.stdout == first+"ed\n" && late:
		case r.code == 5 && r.stdout == "" && strings.Contains(r.stderr, "bloq-agent "+last+" came after it"):
			overtaken++
		default:
			t.Errorf("round %d, %s came first: %+v", round, first, r)
		}
	}
	t.Logf("%d of 12 were overtaken", overtaken)
	w.must("correct horse\n", "bloq-agent", "unlock", "--passphrase-stdin")
	if r := w.must("", "bloq-agent", "lock", "--force"); r.stderr != "" {
		t.Errorf("nothing is left: %+v", r)
	}
	w.must("correct horse\n", "bloq-agent", "unlock", "--passphrase-stdin")
	w.must("", "bloq-token", "-p", "kept")
	w.wants(w.run("", "bloq-token", "-p", "held"), 3, "needs login", "bloq-agent login --profile held")
}

// orderTolerance is how exactly the log tells when a request came.
const orderTolerance = 3 * time.Millisecond

// A span is the time of one request.
type span struct {
	begin time.Time
	took  time.Duration
}

func (s span) middle() time.Time { return s.begin.Add(s.took / 2) }

// handled is when the daemon had the last change called route. Its log, after the
// first from bytes, has how long that took, and its list of callers when it was
// answered.
func (w *world) handled(from int, route string) span {
	w.t.Helper()
	var took time.Duration
	for deadline := time.Now().Add(20 * time.Second); took == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is not logged:\n%s", route, w.log.String())
		}
		for line := range strings.Lines(w.log.String()[from:]) {
			var l struct{ Message, Route, Duration string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Message == "a change was asked for" && l.Route == route {
				var err error
				took, err = time.ParseDuration(l.Duration)
				must(w.t, err)
			}
		}
	}
	var all ipc.Callers
	must(w.t, json.Unmarshal([]byte(w.must("", "bloq-agent", "status", "--callers", "--json").stdout), &all))
	for _, q := range all.Recent { // the newest first
		if q.Asked == route {
			return span{q.Time.Add(-took), took}
		}
	}
	w.t.Fatalf("nobody asked for %s: %+v", route, all)
	return span{}
}

// A lock by force drops a token that no store has, and says nothing of it after.
func TestLockByForceDropsTheOnlyGoodToken(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.start()
	w.login()
	service.Lock(t)
	w.must("", "bloq-agent", "refresh")
	if r := w.must("", "bloq-agent", "lock", "--force"); r.stderr != "" {
		t.Errorf("%+v", r)
	}
	w.wants(w.run("", "bloq-agent", "unlock"), 3, "waiting for the keyring (locked)", "unlock the keyring")
	var s ipc.Status
	if err := json.Unmarshal([]byte(w.run("", "bloq-agent", "status", "--json").stdout), &s); err != nil || s.Profiles[0].Warning != "" {
		t.Errorf("%v: %+v", err, s)
	}
}
