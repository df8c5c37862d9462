package e2e

import (
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

// Each condition of a keyring that ends: the daemon names it where people look,
// and goes on by itself when it has ended.
func TestADaemonRecoversWithoutARestart(t *testing.T) {
	for name, tt := range map[string]struct {
		begin, end func(*testing.T, *storetest.SecretService)
		display    bool
		reason     string
		code       int
	}{
		"locked": {
			func(t *testing.T, s *storetest.SecretService) { s.Lock(t) },
			func(t *testing.T, s *storetest.SecretService) { s.Unlock(t) }, false, "locked", 3,
		},
		"locked, with a display": {
			func(t *testing.T, s *storetest.SecretService) { s.Lock(t) },
			func(t *testing.T, s *storetest.SecretService) { s.Unlock(t) }, true, "locked", 3,
		},
		"killed, and started again by the bus": {
			func(t *testing.T, s *storetest.SecretService) { must(t, syscall.Kill(s.PID, syscall.SIGKILL)) },
			func(t *testing.T, s *storetest.SecretService) { s.Unlock(t) }, false, "locked", 3,
		},
		"frozen": {
			func(t *testing.T, s *storetest.SecretService) { must(t, syscall.Kill(s.PID, syscall.SIGSTOP)) },
			func(t *testing.T, s *storetest.SecretService) { must(t, syscall.Kill(s.PID, syscall.SIGCONT)) }, false, "frozen", 5,
		},
		"the bus is gone, and back": {
			func(t *testing.T, s *storetest.SecretService) { s.StopBus(t) },
			func(t *testing.T, s *storetest.SecretService) { s.RestartBus(t) }, false, "gone", 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := storetest.StartSecretService(t)
			w := newWorld(t, sandbox.Config{})
			w.useBus(service)
			if tt.display {
				w.env = append(w.env, "DISPLAY="+storetest.StartX(t))
			}
			w.start()
			w.login()
			w.stop()
			tt.begin(t, service)
			w.start()
			text := "waiting for the keyring (" + tt.reason + ")"
			r := w.run("", "bloq-token")
			if r.code != tt.code || !strings.Contains(r.stderr, text) {
				t.Errorf("%+v", r)
			}
			for place, b := range map[string]*lockedBuffer{"log": &w.log, "STATUS=": &w.told} {
				w.eventually("the "+place+" says it", func() bool { return strings.Contains(b.String(), text) }) // both come beside the answer
			}
			if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stdout, text) {
				t.Errorf("status: %+v", r)
			}
			events := w.events()
			tt.end(t, service)
			w.await(events, "the profile goes on by itself", func(e ipc.Event) bool { return e.Event == "refreshed" })
			w.must("", "bloq-token")
		})
	}
}
