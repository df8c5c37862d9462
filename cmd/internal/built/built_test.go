package built

import (
	"runtime/debug"
	"testing"
)

func TestTheCommitAsGoNotesIt(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	clean, dirty := debug.BuildSetting{Key: "vcs.modified", Value: "false"}, debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, c := range []struct {
		want     string
		settings []debug.BuildSetting
	}{
		{"0123456789ab", []debug.BuildSetting{revision, clean}},
		{"0123456789ab-dirty", []debug.BuildSetting{revision, dirty}},
		{"", []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}}},
	} {
		if got := commit(c.settings); got != c.want {
			t.Errorf("%v: %q, want %q", c.settings, got, c.want)
		}
	}
}
