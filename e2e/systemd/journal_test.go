package systemd

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Under systemd an event is in the journal by its own fields, once, and what it
// means is in the catalog.
func TestTheJournalHasFieldsOfItsOwn(t *testing.T) {
	t.Parallel()
	h := ready(t)
	h.serving()
	h.must("alice", "bloq-agent", "refresh")
	var found map[string]any
	h.eventually(10*time.Second, "an event of a refresh", func() bool {
		for line := range strings.Lines(h.must("alice", "journalctl", "--user", "-u", "bloq-agent.service", "-o", "json", "--no-pager")) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil && e["EVENT"] == "refreshed" {
				found = e
			}
		}
		return found != nil
	})
	for field, want := range map[string]string{
		"PROFILE": "default", "MESSAGE": "default: refreshed", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "bloq-agent",
		"MESSAGE_ID": "9f86666292524bbb846cb56aa91f6aec", "_SYSTEMD_USER_UNIT": "bloq-agent.service",
	} {
		if found[field] != want {
			t.Errorf("%s is %v, want %s", field, found[field], want)
		}
	}
	for _, twice := range []string{"JSON", "LEVEL", "TIME", "ERR"} {
		if v, there := found[twice]; there {
			t.Errorf("%s is in it too: %v", twice, v)
		}
	}
	if text := h.must("alice", "journalctl", "--user", "-u", "bloq-agent.service", "-x", "--no-pager"); !strings.Contains(text, "Subject: default: a new access token") {
		t.Errorf("the catalog does not explain it:\n%s", text)
	}
}
