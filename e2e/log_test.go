package e2e

import (
	"net/http"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// Whatever becomes of stderr, the daemon logs in, refreshes, answers and stops in
// good order.
func TestNoReaderOfTheLogStopsTheDaemon(t *testing.T) {
	for name, stderr := range map[string]string{
		"the reader leaves":        "mkfifo log && { head -n 1 <log >/dev/null & } && exec 2>log",
		"the reader does not read": "mkfifo log && exec 2<>log",
		"the disk is full":         "exec 2>/dev/full",
		"it is closed":             "exec 2>&-",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Config{})
			w.through(stderr)
			w.start("--store", "memory")
			w.login()
			client := w.client()
			for range 1000 { // a line each; a pipe holds 64 KiB
				answer, err := client.Get("http://bloq-agent" + ipc.RouteToken)
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Fatal(answer, err)
				}
				_ = answer.Body.Close()
			}
			w.must("", "bloq-agent", "refresh")
			start := time.Now()
			w.stop()
			t.Logf("stopped after %v", time.Since(start).Round(time.Millisecond))
		})
	}
}

// The last lines are written before an orderly exit, if they are read.
func TestTheLastLinesOfTheLogAreWritten(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	path := t.TempDir() + "/log"
	w.through("exec 2>" + path)
	w.start("--store", "memory")
	w.stop()
	w.mustSh("grep -q '\"message\":\"stopping\"' " + path)
}
