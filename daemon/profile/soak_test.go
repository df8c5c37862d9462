package profile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
)

// long says that the long forms of the tests are wanted: `make soak`.
var long = os.Getenv("BLOQ_SOAK") == "1"

// passing are the faults of the table that go away by themselves, by kind. The
// others are the endpoint's word that a person must act, and end a soak by design.
func passing() map[string][]sandbox.Fault {
	faults := map[string][]sandbox.Fault{}
	for _, c := range faultCases() {
		if c.class != refresher.NeedsLogin && c.class != refresher.Configuration {
			faults[c.fault.Kind] = append(faults[c.fault.Kind], c.fault)
		}
	}
	return faults
}

// A soak is what came of one run.
type soak struct {
	length   time.Duration
	injected int            // exchanges that met a fault
	kinds    map[string]int // those, by the sandbox's kind
	granted  int            // exchanges that brought a token
	served   int            // callers
	left     time.Duration  // the least life that a token had when it was served
}

// ideal is how many exchanges a run should need. A token of an hour is replaced
// at 50 to 60 % of its life, 55 % in the mean: one exchange each 33 minutes, 43.6
// a day. An exchange that fails is counted apart, for it is the fault's and not
// the schedule's: there must be as many as there were faults. It moves the next
// success by its own time (20 s at most) and the gap before a retry (1 s, or what
// the endpoint asks for, 10 minutes at most): by 1 % of all the time at most, if
// one in twenty fails. What is left of the tenth is for the draws.
func (s soak) ideal() float64 { return s.length.Minutes() / (0.55 * 60) }

// A day, and with BLOQ_SOAK=1 months, in which one exchange in twenty meets a
// fault: no caller notices, nothing is exchanged in vain, nothing leaks.
func TestSoak(t *testing.T) {
	seeds, length := 8, 24*time.Hour
	if long {
		seeds, length = 10, 30*24*time.Hour
	}
	// What is made once and stays is made before the count.
	synctest.Test(t, func(t *testing.T) { runSoak(t, "strict", 1, time.Hour) })
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	kinds := map[string]int{}
	granted, injected, ideal := 0, 0, 0.0
	for _, rotation := range []string{"none", "strict"} {
		for range seeds {
			seed := rand.Uint64()
			t.Run(fmt.Sprintf("%s, seed %d", rotation, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := runSoak(t, rotation, seed, length)
					t.Logf("%v: %d granted (ideal %.1f), %d met a fault, %d callers served, with %v left at least",
						s.length, s.granted, s.ideal(), s.injected, s.served, s.left.Round(time.Second))
					granted, injected, ideal = granted+s.granted, injected+s.injected, ideal+s.ideal()
					for k, n := range s.kinds {
						kinds[k] += n
					}
				})
			})
		}
	}
	t.Logf("%d granted, ideal %.1f (%+.1f %%); %d faults (%.1f %% of all exchanges): %v",
		granted, ideal, 100*(float64(granted)/ideal-1), injected, 100*float64(injected)/float64(granted+injected), kinds)
	if injected == 0 {
		t.Error("no fault: this shows nothing")
	}
	atMost(t, "goroutines", runtime.NumGoroutine, goroutines)
	atMost(t, "descriptors", func() int { return openFiles(t) }, files)
}

func runSoak(t *testing.T, rotation string, seed uint64, length time.Duration) soak {
	how, err := sandbox.ParseRotation(rotation)
	if err != nil {
		t.Fatal(err)
	}
	rig := newRig(t, sandbox.Config{Rotation: how})
	s := soak{length: length, kinds: map[string]int{}, left: time.Hour}
	before := rig.api.Stats()
	dice, faults := rand.New(rand.NewPCG(seed, 0)), passing()
	kinds := slices.Sorted(maps.Keys(faults)) // so that a seed means the same each time
	var failed error
	rig.net.setOnDial(func() bool { // each exchange dials once, and never two at a time
		if dice.IntN(20) != 0 {
			return false
		}
		ofKind := faults[kinds[dice.IntN(len(kinds))]]
		f := ofKind[dice.IntN(len(ofKind))]
		s.injected++
		s.kinds[f.Kind]++
		if f.Kind == "refuse" {
			return true
		}
		f.Route, f.Grant, f.Times = "POST /auth/token", "refreshToken", 1
		failed = errors.Join(failed, rig.api.AddFault(f))
		return false
	})
	synctest.Wait()
	goroutines := runtime.NumGoroutine()
	callers := rand.New(rand.NewPCG(seed, 1))
	for start := time.Now(); time.Since(start) < length; {
		time.Sleep(time.Duration(callers.Int64N(int64(10 * time.Minute))))
		// A wish for more than 24 minutes, the least that a token has left at 60 %
		// of its hour, would rightly bring the exchange forward.
		wish := time.Duration(callers.Int64N(int64(20 * time.Minute)))
		tok, err := rig.r.Token(t.Context(), wish)
		if err != nil {
			t.Fatalf("after %v a caller got %v", time.Since(start), err)
		}
		s.served++
		s.left = min(s.left, lifeLeft(t, tok.Value))
	}
	rig.net.setOnDial(nil)
	// Whatever a fault held for its own time has ended long before an hour has.
	time.Sleep(time.Hour)
	rig.settle(t)
	// One that has just ended may be counted for some milliseconds still, and
	// time stands still here: it is looked at again and again.
	for looks := 0; runtime.NumGoroutine() > goroutines; looks++ {
		if looks == 2_000_000 {
			t.Errorf("%d goroutines, %d at the start", runtime.NumGoroutine(), goroutines)
			break
		}
		runtime.Gosched()
	}
	snapshot, stats := rig.r.Snapshot(), rig.api.Stats()
	s.granted = int(snapshot.Generation) - 1
	s.length += time.Hour
	s.check(t, snapshot, before, stats)
	if failed != nil {
		t.Error(failed)
	}
	return s
}

// check holds a run against what it should be.
func (s soak) check(t *testing.T, last *refresher.Snapshot, before, after sandbox.Stats) {
	t.Helper()
	if diff := float64(s.granted)/s.ideal() - 1; s.length >= 24*time.Hour && (diff < -0.1 || diff > 0.1) {
		t.Errorf("%d exchanges brought a token in %v; ideal %.1f", s.granted, s.length, s.ideal())
	}
	if got := int(last.Exchanges) - s.granted; got != s.injected {
		t.Errorf("%d exchanges failed, %d met a fault", got, s.injected)
	}
	// Refused connections are not seen by the endpoint.
	seen := after.Grants["refreshToken"] - before.Grants["refreshToken"] + s.kinds["refuse"]
	if seen != int(last.Exchanges) || after.Reuse != 0 {
		t.Errorf("the endpoint saw %d exchanges of %d, %d refresh tokens twice", seen, last.Exchanges, after.Reuse)
	}
	if bought := after.Grants["clientCredentials"] - before.Grants["clientCredentials"]; bought != 0 {
		t.Errorf("%d refresh tokens bought", bought)
	}
	if s.left <= 0 {
		t.Errorf("a token was served %v after its expiry", -s.left)
	}
}

// settle waits until no exchange is under way, with none due for a minute.
func (r *rig) settle(t *testing.T) {
	t.Helper()
	for range 60 {
		synctest.Wait()
		if s := r.r.Snapshot(); s.Class == refresher.None && time.Until(s.NextAttempt()) > time.Minute {
			return
		}
		time.Sleep(time.Minute)
	}
	t.Errorf("does not settle: %v", r.r.Snapshot().Err)
}

// lifeLeft is how long a token lives still by what it says of itself.
func lifeLeft(t *testing.T, token []byte) time.Duration {
	t.Helper()
	times, err := accounts.TokenTimes(token)
	if err != nil || times.Expiry.IsZero() {
		t.Fatalf("not a token that ends: %v", err)
	}
	return time.Until(times.Expiry)
}

// The same faults on real sockets, where a connection that is not closed is a
// descriptor that is lost.
func TestFaultsLeakNoDescriptor(t *testing.T) {
	const rounds = 3
	api, err := sandbox.New(sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(api)
	defer srv.Close()
	l := canaryLogin(t, srv.URL, accounts.Options{})
	exchange := func() error {
		// Long enough for an answer; what hangs is given up.
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := l.exchange(ctx)
		return err
	}
	faults := passing()
	delete(faults, "refuse") // not the endpoint's
	all := slices.Concat(slices.Collect(maps.Values(faults))...)
	_ = exchange() // what is opened once and stays
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	count := 0
	for range rounds {
		for _, f := range all {
			f.Route, f.Times = "POST /auth/token", 1
			if err := api.AddFault(f); err != nil {
				t.Fatal(err)
			}
			// A token with odd claims is a grant still; the refresher refuses it.
			if err := exchange(); err == nil && f.Kind != "claims" {
				t.Errorf("%+v: no failure", f)
			}
			count++
		}
	}
	atMost(t, "goroutines", runtime.NumGoroutine, goroutines)
	atMost(t, "descriptors", func() int { return openFiles(t) }, files)
	t.Logf("%d exchanges with a fault: %d descriptors before, %d after; %d goroutines before, %d after",
		count, files, openFiles(t), goroutines, runtime.NumGoroutine())
}

// atMost wants count to come down to limit: what has been let go of may take
// a moment to end.
func atMost(t *testing.T, what string, count func() int, limit int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for count() > limit {
		if time.Now().After(deadline) {
			t.Errorf("%d %s, %d before", count(), what, limit)
			return
		}
		runtime.Gosched()
	}
}

// openFiles counts the descriptors of this process; 0 where that cannot be told.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Logf("descriptors are not counted: %v", err)
	}
	return len(entries)
}
