package systemd

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestAnEntryInTheJournal(t *testing.T) {
	var message string
	var at journal.Priority
	var fields map[string]string
	j := &Journal{func(m string, p journal.Priority, f map[string]string) error {
		message, at, fields = m, p, f
		return nil
	}}
	do(t, j.Send("warn", []byte(`{"level":"warn","profile":"work","attempt":3,"retry_in":"4s","err":"dial \"x\": no","time":"2026-11-26T13:00:00Z","message":"refresh failed"}`)))
	if message != `work: refresh failed: dial "x": no` || at != journal.PriWarning {
		t.Errorf("%q at %d", message, at)
	}
	want := map[string]string{
		"PROFILE": "work", "ATTEMPT": "3", "RETRY_IN": "4s", "EVENT": "refresh_failed",
		"MESSAGE_ID": "eb3b2e4607af428b8448f8cf8e070422", "SYSLOG_IDENTIFIER": "bloq-agent",
	}
	if len(fields) != len(want) {
		t.Errorf("%v", fields)
	}
	for k, v := range want {
		if fields[k] != v {
			t.Errorf("%s is %q, want %q", k, fields[k], v)
		}
	}
	do(t, j.Send("error", []byte(`{"_weird-key":"v","message":"configuration not taken; keeping the one before"}`)))
	if fields["EVENT"] != "not_reloaded" || fields["WEIRD_KEY"] != "v" || at != journal.PriErr {
		t.Errorf("%v", fields)
	}
}

// A message in the journal is shown by journalctl, which trusts it.
func TestAMessageOfTheJournalMovesNoCursor(t *testing.T) {
	const poison = "\x1b]0;x\aMARK\u202e\r\nINJECTED"
	j := &Journal{func(m string, _ journal.Priority, _ map[string]string) error {
		if strings.Count(m, "MARK") != 3 || strings.ContainsFunc(m, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
			t.Errorf("%q", m)
		}
		return nil
	}}
	entry, err := json.Marshal(map[string]string{"profile": poison, "err": poison, "message": poison})
	do(t, err)
	do(t, j.Send("warn", entry))
}

// Each kind of event is explained, and nothing else is.
func TestTheCatalogIsThatOfTheKinds(t *testing.T) {
	text, err := os.ReadFile("../../packaging/bloq-agent.catalog")
	do(t, err)
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^-- ([0-9a-f]{32})$`).FindAllStringSubmatch(string(text), -1) {
		explained[m[1]] = true
	}
	seen := map[string]bool{}
	for _, k := range kinds {
		if !explained[k.id] || seen[k.id] || seen[k.event] {
			t.Errorf("%s: explained %v, twice %v", k.event, explained[k.id], seen[k.id])
		}
		seen[k.id], seen[k.event] = true, true
	}
	if len(explained) != len(kinds) {
		t.Errorf("%d kinds, %d explained", len(kinds), len(explained))
	}
}
