package daemon

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"bloq-agent/daemon/notifytest"
)

func notifyManager(t *testing.T) *notifytest.Manager {
	t.Helper()
	m := notifytest.New(t, 3)
	t.Setenv("NOTIFY_SOCKET", m.Path)
	return m
}

func keptList(tokens ...string) []keptToken {
	var list []keptToken
	for i, tok := range tokens {
		list = append(list, keptToken{ID: fmt.Sprint(i), Generation: 7, Token: []byte(tok), Expiry: time.Now().Add(time.Hour)})
	}
	return list
}

func TestTokensOutliveTheDaemon(t *testing.T) {
	m := notifyManager(t)
	k := newTokenKeeper(newFDStore())
	for i := range 5 { // the names alternate
		do(t, k.keep(keptList(fmt.Sprint("token-", i), "other")))
		if files := m.Held(t); len(files) != 1 {
			t.Fatalf("systemd holds %d files", len(files))
		}
	}
	for range 3 { // a daemon after the other, which keeps in its turn
		k = newTokenKeeper(newFDStore())
		list, err := k.takeKept(m.Held(t))
		if err != nil || len(list) != 2 || string(list[0].Token) != "token-4" || list[0].Generation != 7 {
			t.Fatalf("%v, %v", list, err)
		}
		do(t, k.keep(list))
	}
	do(t, k.keep(nil))
	if files := m.Held(t); len(files) != 0 {
		t.Errorf("after there is nothing to keep systemd holds %d files", len(files))
	}
	if got := k.state(); got != "nothing to keep" {
		t.Error(got)
	}
}

// A crash between the two halves of a change leaves both files: the newer counts.
func TestOfTwoFilesTheNewerCounts(t *testing.T) {
	m := notifyManager(t)
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(keptList("old")))
	do(t, k.store.put(name(1-k.slot), mustEncode(t, kept{Version: keptVersion, Serial: 9, Profiles: keptList("new")})))
	next := newTokenKeeper(newFDStore())
	list, err := next.takeKept(m.Held(t))
	if err != nil || len(list) != 1 || string(list[0].Token) != "new" {
		t.Errorf("%v, %v", list, err)
	}
	do(t, next.keep(keptList("newest")))
	if files := m.Held(t); len(files) != 1 {
		t.Errorf("systemd holds %d files", len(files))
	}
}

// What is held cannot be changed behind our back, and damage is not believed.
func TestAKeptFileIsSealed(t *testing.T) {
	m := notifyManager(t)
	do(t, newTokenKeeper(newFDStore()).keep(keptList("token")))
	f := m.Held(t)[0]
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	do(t, f.Close())
	damaged, err := os.CreateTemp(t.TempDir(), "")
	do(t, err)
	_, err = damaged.WriteString(`{"version":1,"serial":99,"profiles":[{"token":"secret`)
	do(t, err)
	list, err := newTokenKeeper(nil).takeKept([]*os.File{damaged})
	if err == nil || list != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, %v", list, err)
	}
}

func TestWithoutSystemdNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(keptList("token")))
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}

func TestAManagerThatIsGoneIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/none")
	k := newTokenKeeper(newFDStore())
	if err := k.keep(keptList("token")); err == nil {
		t.Error("kept by nobody")
	}
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}
