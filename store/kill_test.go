package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/store"
)

// killHome and killID tell the child of TestAKillInsideASaveLosesNothing where
// to write.
const (
	killHome = "BLOQ_TEST_KILL_HOME"
	killID   = "BLOQ_TEST_KILL_ID"
)

// Kill -9 at random moments while items are being saved: there is always one
// readable copy, and it is never older than the last save that returned.
func TestAKillInsideASaveLosesNothing(t *testing.T) {
	if dir := os.Getenv(killHome); dir != "" {
		f := home{items: dir + "/items", keys: dir + "/keys"}.open()
		for i := 0; ; i++ {
			if err := f.Save(t.Context(), os.Getenv(killID), item(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintln(os.Stdout, "saved", i)
		}
	}
	const rounds = 200
	dir, id := t.TempDir(), store.NewID()
	h := home{items: dir + "/items", keys: dir + "/keys"}
	do(t, os.Mkdir(h.items, 0o700))
	do(t, h.open().Save(t.Context(), id, item("0")))
	inside := 0
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAKillInsideASaveLosesNothing$")
		cmd.Env = append(os.Environ(), killHome+"="+dir, killID+"="+id)
		out, err := cmd.StdoutPipe()
		do(t, err)
		do(t, cmd.Start())
		lines := bufio.NewScanner(out)
		lines.Scan() // it is saving now
		time.AfterFunc(time.Duration(rand.N(int64(5*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		last := 0
		for ok := true; ok; ok = lines.Scan() {
			_, _ = fmt.Sscanf(lines.Text(), "saved %d", &last)
		}
		_ = cmd.Wait() // killed
		got, err := h.open().Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		token := string(got.RefreshToken.Reveal())
		if token != fmt.Sprint(last) && token != fmt.Sprint(last+1) {
			t.Fatalf("%q is stored after save %d returned", token, last)
		}
		temps, err := filepath.Glob(h.items + "/.bloq-*")
		do(t, err)
		if len(temps) > 0 || token == fmt.Sprint(last+1) {
			inside++
		}
		for _, path := range temps { // the daemon's start clears them
			do(t, os.Remove(path))
		}
	}
	t.Logf("%d kills, %d of them seen to be inside a save; one readable copy each time", rounds, inside)
	if inside == 0 {
		t.Error("no kill hit the inside of a save: the test shows nothing")
	}
	entries, err := os.ReadDir(h.items)
	do(t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".damaged") {
			t.Errorf("%s was put aside", e.Name())
		}
	}
	if _, err := h.open().Load(t.Context(), store.NewID()); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
