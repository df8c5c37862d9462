// Package built adds to the version what Go has noted of the commit. bloq-token
// does without: runtime/debug links fmt.
package built

import (
	"runtime/debug"

	"bloq-agent/cmd/internal/version"
)

// Version is version.String, and after a plain go build in a checkout names the
// commit, too.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version.String()
	}
	return version.Or(commit(info.Settings))
}

// commit is as long as in the Makefile.
func commit(settings []debug.BuildSetting) string {
	revision, dirty := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}
