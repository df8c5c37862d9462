package daemon

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

func TestRefusalsAreLoggedOnceAMinute(t *testing.T) {
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log)}
	for range 1000 {
		d.refused(server.Peer{PID: 7, UID: 65534})
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), `"peer_uid":65534,"times":1,`) {
		t.Errorf("%d lines: %s", n, log.String())
	}
	if _, say := d.refusals.happened(time.Now().Add(seldomGap - time.Second)); say {
		t.Error("said twice in a minute")
	}
	if times, say := d.refusals.happened(time.Now().Add(seldomGap + time.Second)); !say || times != 1001 {
		t.Errorf("the next line tells of %d, %v", times, say)
	}
	if n := d.refusals.count(); n != 1002 {
		t.Errorf("%d in all", n)
	}
}
