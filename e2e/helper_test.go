package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The helper is started for every git push and kubectl call: what it links is
// what it costs.
func TestTheHelperIsSmallAndLinksNoNet(t *testing.T) {
	readSources(t)
	fi, err := os.Stat(filepath.Join(bin, "bloq-token"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("bloq-token: %d bytes", fi.Size())
	if fi.Size() > 1_600_000 {
		t.Errorf("bloq-token has %d bytes, more than 1.6 MB", fi.Size())
	}
	out, err := exec.Command("go", "list", "-deps", "../cmd/bloq-token").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, banned := range []string{"net", "net/http", "fmt", "encoding/json", "github.com/rs/zerolog", "reflect", "os/exec"} {
		if slices.Contains(deps, banned) {
			t.Errorf("bloq-token links %s", banned)
		}
	}
	out, err = exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, "../cmd/bloq-token").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"os", "syscall", "errors", "bloq-agent/ipc", "bloq-agent/ipc/client", "bloq-agent/cmd/internal/version"}
	for _, i := range strings.Fields(string(out)) {
		if !slices.Contains(allowed, i) {
			t.Errorf("bloq-token imports %s", i)
		}
	}
}

// The tree of imports is what keeps each package readable by itself.
func TestTheTreeOfImports(t *testing.T) {
	readSources(t)
	for pkg, allowed := range map[string][]string{
		"bloq-agent/ipc":               {},
		"bloq-agent/ipc/client":        {"bloq-agent/ipc", "bloq-agent/userns"},
		"bloq-agent/ipc/server":        {"bloq-agent/ipc", "bloq-agent/userns"},
		"bloq-agent/refresher":         {},
		"bloq-agent/store":             {"bloq-agent/store/failpoint", "bloq-agent/store/trusted", "bloq-agent/store/turn", "bloq-agent/userns"},
		"bloq-agent/store/trusted":     {"bloq-agent/userns"},
		"bloq-agent/store/turn":        {},
		"bloq-agent/userns":            {},
		"bloq-agent/accounts":          {"bloq-agent/accounts/loopback", "bloq-agent/userns"},
		"bloq-agent/accounts/loopback": {"bloq-agent/userns"},
		"bloq-agent/accounts/sandbox":  {"bloq-agent/accounts", "bloq-agent/accounts/loopback", "bloq-agent/userns"},
		"bloq-agent/daemon/callers":    {"bloq-agent/ipc"},
		"bloq-agent/daemon/dialect":    {"bloq-agent/ipc"},
		"bloq-agent/daemon/sink":       {"bloq-agent/daemon/harden", "bloq-agent/store", "bloq-agent/store/failpoint", "bloq-agent/store/trusted", "bloq-agent/store/turn", "bloq-agent/userns"},
		"bloq-agent/daemon/harden":     {},
		"bloq-agent/daemon/systemd":    {"bloq-agent/ipc"},
		"bloq-agent/daemon/wake":       {"bloq-agent/refresher"},
		"bloq-agent/daemon/config": {
			"bloq-agent/accounts", "bloq-agent/accounts/loopback", "bloq-agent/daemon/dialect", "bloq-agent/daemon/sink", "bloq-agent/daemon/harden",
			"bloq-agent/ipc", "bloq-agent/store", "bloq-agent/store/failpoint", "bloq-agent/store/trusted", "bloq-agent/store/turn", "bloq-agent/userns",
		},
		// What a profile is knows neither the socket nor the log.
		"bloq-agent/daemon/profile": {
			"bloq-agent/accounts", "bloq-agent/accounts/loopback", "bloq-agent/refresher",
			"bloq-agent/store", "bloq-agent/store/failpoint", "bloq-agent/store/trusted", "bloq-agent/store/turn", "bloq-agent/userns",
		},
		"bloq-agent/cmd/bloq-sandbox": {
			"bloq-agent/accounts/sandbox", "bloq-agent/accounts", "bloq-agent/cmd/internal/built", "bloq-agent/cmd/internal/version",
			"bloq-agent/accounts/loopback", "bloq-agent/ipc", "bloq-agent/userns",
		},
	} {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			if strings.HasPrefix(dep, "bloq-agent/") && dep != pkg && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
			if dep == "github.com/rs/zerolog" {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}
