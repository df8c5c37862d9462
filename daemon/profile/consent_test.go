package profile

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store/storetest"
)

// KeePassXC asks for consent at each start of the daemon. It asks once, however
// often the profile looks, and its answer counts whenever it comes.
func TestKeePassXCAsksAProfileOnce(t *testing.T) {
	service := storetest.StartKeePassXC(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", service.Address())
	e, place := newEndpoint(t, sandbox.Config{}), newPlace(t)
	before := place.open(t)
	do(t, before.logIn(t, e, "work", "keyring").Refresh(t.Context()))
	if n := service.Windows(t); n > 0 {
		t.Errorf("a login and a refresh opened %d windows", n)
	}
	before.Close()

	s := place.open(t)
	var looks atomic.Int32
	s.pause = func(int) time.Duration {
		looks.Add(1)
		return 10 * time.Millisecond
	}
	p := s.named("work")
	const wanted, denied = "work: the keyring is asking for your consent: answer KeePassXC's window", "work: the keyring did not get your consent: KeePassXC's window was dismissed"
	holds := func(detail string, windows int) {
		t.Helper()
		for stop := looks.Load() + 50; looks.Load() < stop; { // by time alone
			_, err := p.Token(t.Context(), 0)
			if problem := new(Problem); !errors.As(err, &problem) || problem.Kind != NeedsUnlock || problem.Detail != detail {
				t.Fatalf("%v, want %s", err, detail)
			}
		}
		if n := service.Windows(t); n != windows {
			t.Fatalf("%d windows, want %d", n, windows)
		}
	}
	s.Start()
	holds(wanted, 1)
	service.Dismiss(t)
	place.until(t, "the refusal is noticed", func() bool { return p.state.Load().problem.Detail == denied })
	holds(denied, 0)
	if err := s.Unlock(nil); err == nil || err.Error() != wanted {
		t.Errorf("unlock: %v", err)
	}
	holds(wanted, 1)
	service.Allow(t)
	place.until(t, "it serves", func() bool { return p.state.Load().phase == Serving })
	do(t, p.Refresh(t.Context()))
	if n := service.Windows(t); n > 0 {
		t.Errorf("a refresh opened %d windows", n)
	}

	do(t, s.Lock(false)) // gives the consent back
	if err := s.Unlock(nil); err == nil || err.Error() != wanted {
		t.Errorf("unlock after lock: %v", err)
	}
	service.Allow(t)
	place.until(t, "it serves after a lock", func() bool { return p.state.Load().phase == Serving })
}
