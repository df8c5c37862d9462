package daemon

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/ipc/server"
	"bloq-agent/refresher"

	"github.com/rs/zerolog"
)

func TestRefusalsAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := &Daemon{log: zerolog.New(&log), outside: &Outside{Clock: refresher.RuntimeClock()}}
		time.Sleep(time.Hour) // the machine has run for some time
		refuse := func(lines int, what string) {
			t.Helper()
			narrator{d}.refused(server.Peer{PID: 7, UID: 65534})
			if n := strings.Count(log.String(), "\n"); n != lines {
				t.Errorf("%s: %d lines: %s", what, n, log.String())
			}
		}
		for range 1000 {
			refuse(1, "at once")
		}
		time.Sleep(time.Minute - time.Second)
		refuse(1, "within the minute")
		time.Sleep(time.Second)
		refuse(2, "after it")
		if !strings.Contains(log.String(), `"peer_uid":65534,"times":1,`) || !strings.Contains(log.String(), `"times":1002,`) || d.told.refusals.Load() != 1002 {
			t.Errorf("%d in all: %s", d.told.refusals.Load(), log.String())
		}
	})
}
