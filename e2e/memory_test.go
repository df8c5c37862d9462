package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// After lock the memory of the daemon holds no secret, in no form.
func TestLockedMeansWiped(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second, Rotation: sandbox.Rotation{On: true}})
	w.start()
	w.login("--store", "file", "--keep-client-secret")
	w.login("-p", "other", "--store", "memory")
	w.must("correct horse battery\n", "bloq-agent", "store", "protect", "--passphrase-stdin")
	w.secrets.add("passphrase", "correct horse battery")
	client := w.client() // one that keeps its connection
	client.Transport = w.keepAlive()
	for range 5 {
		w.must("", "bloq-agent", "refresh", "-p", "default")
		w.must("", "bloq-token", "-p", "other")
		w.must("", "bloq-token", "-p", "default", "--account")
		answer, err := client.Get("http://bloq-agent/v1/token?profile=default")
		must(t, err)
		_, err = bufio.NewReader(answer.Body).ReadString('\n')
		must(t, err)
		must(t, answer.Body.Close())
	}
	if len(w.secretsIn(w.daemon.Process.Pid)) == 0 {
		t.Error("nothing is found before lock: the test shows nothing")
	}
	w.must("", "bloq-agent", "lock")
	for _, secret := range w.secretsIn(w.daemon.Process.Pid) {
		// Nobody can reach what lies under a stack that is in use.
		if strings.HasPrefix(secret, "token of") {
			t.Logf("a token of 1 or 12 h after lock: %s", secret)
			continue
		}
		t.Errorf("after lock: %s", secret)
	}
	// What is in memory alone is lost, as the help says.
	w.must("correct horse battery\n", "bloq-agent", "unlock", "--passphrase-stdin")
	w.must("", "bloq-token", "-p", "default")
	w.wants(w.run("", "bloq-token", "-p", "other"), 3, "needs login", "bloq-agent login --profile other")
}

// secretsIn finds the secrets of the run, each in two forms, in the memory of a
// process.
func (w *world) secretsIn(pid int) []string {
	w.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if errors.Is(err, os.ErrPermission) {
		w.t.Skip("the daemon's memory is closed to all but root")
	}
	must(w.t, err)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, os.ErrPermission) {
		w.t.Skip("reading the memory of another process takes root here")
	}
	must(w.t, err)
	defer func() { _ = mem.Close() }()
	var found []string
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' {
			continue
		}
		content := make([]byte, to-from)
		got, err := mem.ReadAt(content, from)
		if err != nil && !errors.Is(err, syscall.EIO) { // [vvar] and the like
			w.t.Logf("%s%v", line, err)
		}
		content = content[:got]
		for secret, what := range w.secrets.all() {
			for form, s := range map[string]string{"clear": secret, "base64": base64.StdEncoding.EncodeToString([]byte(secret))} {
				for i := 0; ; {
					at := bytes.Index(content[i:], []byte(s))
					if at < 0 {
						break
					}
					i += at + 1
					found = append(found, fmt.Sprintf("%s in %s at %x of %s", what, form, from+int64(i), strings.TrimSpace(line)))
				}
			}
		}
	}
	return found
}
