package systemd

import (
	"encoding/json"
	"strconv"
	"strings"

	"bloq-agent/ipc"

	"github.com/coreos/go-systemd/v22/journal"
)

// Keys of a log entry that the journal has fields of its own for.
const (
	timeKey    = "time"
	levelKey   = "level"
	messageKey = "message"
)

// A Journal writes the daemon's log to journald, with an entry's fields as fields
// (systemd.journal-fields(7)): PROFILE, EVENT, MESSAGE_ID and whatever else the
// entry has. zerolog has a writer of its own, which sends every entry twice: as
// fields, and whole, as JSON.
type Journal struct {
	send func(message string, priority journal.Priority, fields map[string]string) error
}

// OnStderr returns the Journal if standard error is connected to it, else nil.
func OnStderr() *Journal {
	if native, err := journal.StderrIsJournalStream(); err != nil || !native {
		return nil
	}
	return &Journal{journal.Send}
}

// Send writes one entry: a JSON object of level "debug", "info", "warn", "error",
// "fatal" or "panic".
func (j *Journal) Send(level string, entry []byte) error {
	message, fields := journalEntry(entry)
	return j.send(message, priority(level), fields)
}

func priority(level string) journal.Priority {
	switch level {
	case "debug", "trace":
		return journal.PriDebug
	case "warn":
		return journal.PriWarning
	case "error":
		return journal.PriErr
	case "fatal", "panic":
		return journal.PriCrit
	}
	return journal.PriInfo
}

// journalEntry turns a log entry into the journal's. The message names the
// profile and the error for people; it repeats nothing else.
func journalEntry(p []byte) (string, map[string]string) {
	var event map[string]json.RawMessage
	if err := json.Unmarshal(p, &event); err != nil {
		return strings.TrimSpace(string(p)), nil
	}
	fields := map[string]string{"SYSLOG_IDENTIFIER": "bloq-agent"}
	message, cause := "", ""
	for key, raw := range event {
		value := plainJSON(raw)
		switch key {
		case timeKey, levelKey: // the journal has both
		case messageKey:
			message = value
		case "err", "error":
			cause = ": " + value
		default:
			fields[journalName(key)] = value
		}
	}
	if k, ok := eventKind(message); ok {
		fields["EVENT"], fields["MESSAGE_ID"] = k.event, k.id
	}
	if profile := fields["PROFILE"]; profile != "" && !strings.HasPrefix(message, profile+": ") {
		message = profile + ": " + message
	}
	return ipc.Visible(message + cause), fields
}

func plainJSON(raw json.RawMessage) string {
	if s, err := strconv.Unquote(string(raw)); err == nil {
		return s
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// journalName is a field's name as journald takes it: A-Z, 0-9 and _, and no _
// at the start, which is for the journal's own.
func journalName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, key)
	return strings.TrimLeft(name, "_0123456789")
}

// A kind is an event that has a MESSAGE_ID and an entry in
// packaging/bloq-agent.catalog.
type kind struct{ message, event, id string }

// kinds are found by the beginning of their message.
var kinds = []kind{
	{"started", "started", "473cdcf6a82748429af3a7cedc2fc626"},
	{"stopping", "stopping", "942cc4b06b77495b83dbde388b8f17fc"},
	{"refreshed", "refreshed", "9f86666292524bbb846cb56aa91f6aec"},
	{"recovered", "recovered", "20cc4d89b6fc44e196a10d055c84bc9f"},
	{"refresh failed", "refresh_failed", "eb3b2e4607af428b8448f8cf8e070422"},
	{"needs login", "needs_login", "3006378343824644ab361b61fcb1d606"},
	{"configuration", "configuration", "63d2445165dc42a1b016a48fa2822c07"},
	{"not saved", "not_saved", "9526794321ec4ace841abfc9c39312cb"},
	{"saved", "saved", "e78dadab9d5c487b8c8da04d7dbe94c4"},
	{"locked", "locked", "e47a86b96bc94895a52f77408c22686a"},
	{"unlocked", "unlocked", "304b354303a0452c8dcef6f67bbe31d0"},
	{"adopted a login", "adopted", "8d5f3374712a42e48ff68788c3aba54b"},
	{"forgot a login", "forgotten", "5ab013c50e054de7ba066cf10eda2573"},
	{"moved", "moved", "505cf965b74244f1a851a1fd2f3f3c10"},
	{"configuration reloaded", "reloaded", "19eb94c267dc4838bb55a6c1c9da4e14"},
	{"configuration not taken", "not_reloaded", "a6ebb23790d44b1eb0ea69a5cc65f212"},
	{"the login ends in", "login_ends", "a0edfc61a1f14d95a25c93ee5167e78f"},
	{"a reply of the endpoint may have been lost", "reply_lost", "c36dfbfbb76e4c2992fe2ef6040e0c7a"},
	{"refused a peer of another user", "refused_peer", "1b593ead8c0f482c8e65efd3132dc7ed"},
	{"the clock of the endpoint", "clock_skew", "5b2e6a53b38e4720a3d6c6b0aa9f3aa4"},
}

// eventKind prefers the longest beginning, because "configuration" begins another
// message too.
func eventKind(message string) (kind, bool) {
	var best kind
	for _, k := range kinds {
		if strings.HasPrefix(message, k.message) && len(k.message) > len(best.message) {
			best = k
		}
	}
	return best, best.message != ""
}
