package systemd

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// From a package file to the first token, as an ordinary user.
func TestInstallEnableAsk(t *testing.T) {
	h := ready(t)
	u := h.userUnit("alice")
	if r := u.token(); r.code != 4 || !strings.Contains(r.err, "systemctl --user enable --now bloq-agent.socket") {
		t.Errorf("before the socket is enabled: %+v", r)
	}
	u.systemctl("enable", "--now", "bloq-agent.socket")
	if got := u.show("service", "ActiveState"); got != "inactive" {
		t.Errorf("nobody has asked, and the service is %s", got)
	}
	if r := u.token(); r.code != 3 || !strings.Contains(r.err, "bloq-agent login") {
		t.Errorf("before the login: %+v", r)
	}
	u.login("file")
	var took []time.Duration
	for range 9 {
		u.systemctl("stop", "bloq-agent.service") // the socket stays; the descriptor store does not
		ns, err := strconv.Atoi(strings.TrimSpace(h.must("alice", "env", "BLOQ_E2E_INSIDE=cold", "inside")))
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Duration(ns))
	}
	slices.Sort(took)
	t.Logf("first answer, cold, file store, with its exchange: best %v, median %v, worst %v",
		took[0].Round(time.Millisecond), took[4].Round(time.Millisecond), took[8].Round(time.Millisecond))
	if took[0] > 150*time.Millisecond {
		t.Errorf("the best of %d takes %v, more than 150 ms", len(took), took[0])
	}
	if got := u.show("service", "Result"); got != "success" {
		t.Errorf("result %s", got)
	}
}

// A socket that is stopped, or has lost its file or its directory, is mended by the
// one command that the helper names, and the daemon says the same.
func TestALostSocketIsMendedByItsHint(t *testing.T) {
	h := ready(t)
	u := h.serving()
	const command = "systemctl --user restart bloq-agent.socket"
	dir := "/run/user/" + h.uid("alice") + "/bloq-agent"
	for name, lose := range map[string]func(){
		"stopped":           func() { u.systemctl("stop", "bloq-agent.socket") },
		"without its file":  func() { h.must("alice", "rm", dir+"/agent.sock") },
		"without directory": func() { h.must("alice", "rm", "-r", dir) },
	} {
		u.mustToken()
		lose()
		if r := u.token(); r.code != 4 || !strings.Contains(r.err, "hint: "+command+"\n") {
			t.Errorf("%s: %+v", name, r)
		}
		if name != "stopped" {
			h.eventually(20*time.Second, "the daemon says so", func() bool { return strings.HasSuffix(u.show("service", "StatusText"), command) })
		}
		u.systemctl("restart", "bloq-agent.socket")
		u.mustToken()
	}
}

func TestKillsUnderLoad(t *testing.T) {
	h := ready(t)
	u := h.serving()
	l := u.loadOf()
	for range 30 {
		time.Sleep(400 * time.Millisecond)
		u.kill()
	}
	u.end(l, "30 kills, one every 0.4 s")
	u.mustToken()
	if n := u.restarts(); n != 30 {
		t.Errorf("%d restarts after 30 kills", n)
	}
}

func TestRestartsAndAnUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u, s := h.serving(), h.systemUnit("carol")
	s.systemctl("enable", "--now", "bloq-agent@carol.socket")
	s.login("file")
	build(t, "1.0.1")
	l := u.loadOf()
	for range 20 {
		u.systemctl("restart", "bloq-agent.service")
	}
	u.end(l, "20 restarts")

	before, system := u.show("service", "MainPID"), s.show("service", "MainPID")
	l, ls := u.loadOf(), s.loadOf()
	time.Sleep(300 * time.Millisecond)
	h.install("1.0.1")
	if after := u.show("service", "MainPID"); after == before {
		t.Error("the upgrade did not restart the user's agent")
	}
	if after := s.show("service", "MainPID"); after == system {
		t.Error("the upgrade did not restart the system's instance")
	}
	time.Sleep(300 * time.Millisecond)
	u.end(l, "upgrade, user unit")
	s.end(ls, "upgrade, system unit")
	if got := h.must("alice", "bloq-agent", "status", "--json"); !strings.Contains(got, `"1.0.1 (`) {
		t.Errorf("not the new version: %s", got)
	}
}

// A daemon that cannot start must not cost the socket: nobody who waits could
// bring it back.
func TestACrashLoopKeepsTheSocket(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.serving()
	u.dropIn("crash", "[Service]\nExecStart=\nExecStart=/bin/false\n")
	u.kill()
	waiting := make(chan result, 1)
	go func() { waiting <- h.run("alice", "", "bloq-token", "--timeout", "60s") }()
	h.eventually(40*time.Second, "50 crashes", func() bool { return u.restarts() >= 50 })
	for _, kind := range []string{"socket", "service"} {
		if got := u.show(kind, "ActiveState"); got == "failed" || got == "inactive" {
			t.Errorf("after 50 crashes the %s is %s: %s", kind, got, u.show(kind, "Result"))
		}
	}
	u.dropIn("crash", "")
	if r := <-waiting; r.code != 0 || strings.Count(r.out, ".") != 2 {
		t.Errorf("who waited all the time: %+v", r)
	}
	u.mustToken()
	t.Logf("served after %d crashes", u.restarts())
}

const (
	goodConfig = "log_level = \"info\"\n"
	badConfig  = "log_level = \"loud\"\n"
)

func (u unit) configure(text string) {
	u.h.t.Helper()
	u.h.write(u.user, "/home/"+u.user+"/.config/bloq-agent/config.toml", text)
}

func (u unit) socketPath() string { return "/run/user/" + u.h.uid(u.user) + "/bloq-agent/agent.sock" }

// A bad configuration at the start is an answer, and stays one for as long as
// anybody asks.
func TestABadConfigurationIsServed(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.serving()
	u.configure(badConfig)
	u.systemctl("stop", "bloq-agent.service")
	asked := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		asked++
		if r := u.token(); r.code != 5 || !strings.Contains(r.err, "config.toml: log_level") || !strings.Contains(r.err, "bloq-agent config check") {
			t.Fatalf("after %d answers: %+v\n%s", asked, r, h.journal())
		}
		if got := u.show("socket", "ActiveState"); got != "active" {
			t.Fatalf("the socket is %s", got)
		}
	}
	got := h.must("alice", "env", "BLOQ_E2E_INSIDE=get", "inside", u.socketPath(), "/v1/token")
	if !strings.Contains(got, `"code":"configuration"`) {
		t.Errorf("the socket says %s", got)
	}
	t.Logf("told %d times in a minute", asked)
	u.configure(goodConfig)
	u.systemctl("reload", "bloq-agent.service")
	h.eventually(5*time.Second, "mended by a reload", func() bool { return u.token().code == 0 })
}

func TestAConfigurationThatChanges(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.serving()
	pid := u.show("service", "MainPID")
	said := func(what string, times int) {
		t.Helper()
		h.eventually(10*time.Second, what, func() bool { return strings.Count(u.log(), what) == times })
	}
	u.configure(goodConfig)
	said("configuration reloaded", 1)
	u.configure(badConfig)
	said("configuration not taken", 1)
	u.mustToken()
	if got := h.must("alice", "bloq-agent", "status", "--json"); !strings.Contains(got, "config.toml: log_level") {
		t.Errorf("status does not tell: %s", got)
	}
	u.configure(goodConfig + "# mended\n")
	said("configuration reloaded", 2)
	u.systemctl("reload", "bloq-agent.service")
	said("configuration reloaded", 3)
	u.mustToken()
	if got := u.show("service", "MainPID"); got != pid {
		t.Error("a reload has restarted the daemon")
	}
}

// Bob lingers: he has a manager, and neither a session nor a D-Bus.
func TestNoSessionAndNoBus(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.userUnit("bob")
	if h.exists("/run/user/" + h.uid("bob") + "/bus") {
		t.Fatal("bob has a bus")
	}
	if got := h.must("root", "loginctl", "list-sessions", "--no-legend"); got != "" {
		t.Fatalf("there are sessions: %s", got)
	}
	u.systemctl("enable", "--now", "bloq-agent.socket")
	u.login("file")
	u.mustToken()
	if r := h.run("bob", sandboxPassword+"\n", "bloq-agent", "login", "-p", "other", "--accounts-url", sandboxURL, "--user", sandboxUser,
		"--password-stdin", "--store", "keyring"); r.code == 0 {
		t.Error("a keyring without a bus")
	}
	u.mustToken()
	h.credentials(u, "/home/bob/keys")
}

// credentials gives the unit a login by systemd's credentials, in dir.
func (h *host) credentials(u unit, dir string) {
	h.t.Helper()
	id, secret := h.clientKeys()
	h.write(u.as, dir+"/id", id)
	h.write(u.as, dir+"/secret", secret)
	u.dropIn("credentials", "[Service]\nLoadCredential=bloq-agent.robot.client-id:"+dir+"/id\n"+
		"LoadCredential=bloq-agent.robot.client-secret:"+dir+"/secret\n")
	config := "/home/" + u.user + "/.config/bloq-agent/config.toml"
	if u.as == "root" {
		config = "/etc/bloq-agent/config.toml"
	}
	h.write(u.as, config, "[profile.robot]\naccounts_url = \""+sandboxURL+"\"\n")
	u.systemctl("restart", u.name+".service")
	if r := h.run(u.user, "", "bloq-token", "-p", "robot"); r.code != 0 || strings.Count(r.out, ".") != 2 {
		h.t.Errorf("%s, with credentials: %+v\n%s", u.name, r, u.log())
	}
}

// clientKeys makes some at the sandbox, with alice's login.
func (h *host) clientKeys() (id, secret string) {
	h.t.Helper()
	h.serving()
	for line := range strings.Lines(h.must("alice", "bloq-agent", "keys", "create")) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "client id":
			id = strings.TrimSpace(value)
		case "client secret":
			secret = strings.TrimSpace(value)
		}
	}
	return id, secret
}

func TestTheSystemUnit(t *testing.T) {
	t.Parallel()
	h := ready(t)
	u := h.systemUnit("carol")
	if h.exists("/run/user/" + h.uid("carol")) {
		t.Fatal("carol has a session")
	}
	u.systemctl("enable", "--now", "bloq-agent@carol.socket")
	u.login("file")
	u.mustToken()
	got := h.must("root", "stat", "-c", "%n %a %U", "/run/bloq-agent", "/run/bloq-agent/carol", "/run/bloq-agent/carol/agent.sock",
		"/var/lib/bloq-agent", "/var/lib/bloq-agent/carol")
	want := "/run/bloq-agent 755 root\n/run/bloq-agent/carol 755 root\n/run/bloq-agent/carol/agent.sock 600 carol\n" +
		"/var/lib/bloq-agent 755 root\n/var/lib/bloq-agent/carol 700 carol\n"
	if got != want {
		t.Errorf("modes and owners:\n%swant:\n%s", got, want)
	}
	if n := h.must("root", "find", "/home/carol", "-newer", "/usr/local/bin/inside"); strings.Contains(n, "bloq") {
		t.Errorf("it wrote to the home: %s", n)
	}
	if r := h.run("dave", "", "bloq-token", "--socket", "/run/bloq-agent/carol/agent.sock"); r.code != 4 {
		t.Errorf("another user: %+v", r)
	}
	l := u.loadOf()
	for range 5 {
		time.Sleep(400 * time.Millisecond)
		u.kill()
	}
	u.end(l, "5 kills of the system unit")

	d := h.systemUnit("dave")
	d.systemctl("enable", "--now", "bloq-agent@dave.socket")
	h.credentials(d, "/etc/bloq-agent/dave")
}

func TestTheUnitsAreInOrder(t *testing.T) {
	t.Parallel()
	h := ready(t)
	for _, c := range [][]string{
		{"alice", "systemd-analyze", "--user", "verify", "/usr/lib/systemd/user/bloq-agent.socket", "/usr/lib/systemd/user/bloq-agent.service"},
		{"root", "systemd-analyze", "verify", "/usr/lib/systemd/system/bloq-agent@.socket", "/usr/lib/systemd/system/bloq-agent@.service"},
	} {
		if r := h.run(c[0], "", c[1:]...); r.code != 0 || r.out+r.err != "" {
			t.Errorf("%v: %+v", c, r)
		}
	}
	u, s := h.serving(), h.systemUnit("carol")
	s.systemctl("enable", "--now", "bloq-agent@carol.socket")
	s.login("file")
	for _, line := range []string{
		h.must("alice", "systemd-analyze", "--user", "--no-pager", "security", "bloq-agent.service"),
		h.must("root", "systemd-analyze", "--no-pager", "security", "bloq-agent@carol.service"),
	} {
		lines := strings.Split(strings.TrimSpace(line), "\n")
		t.Log(lines[len(lines)-1])
	}
	// What a user manager cannot do it must not be told to do: see the unit.
	for _, property := range []string{"PrivateUsers", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "ProtectHostname"} {
		if got := u.show("service", property); got != "no" {
			t.Errorf("%s=%s in the user unit", property, got)
		}
	}
	if got := s.show("service", "PrivateUsers"); got != "no" {
		t.Errorf("PrivateUsers=%s in the system unit", got)
	}
	if log := u.log() + s.log(); strings.Contains(log, "Failed") || strings.Contains(log, "\"error\"") {
		t.Errorf("the journal complains:\n%s", log)
	}
	for _, v := range []unit{u, s} {
		status := h.must("root", "cat", "/proc/"+v.show("service", "MainPID")+"/status")
		for _, line := range strings.Split(status, "\n") {
			for _, field := range []string{"VmRSS", "VmHWM", "RssAnon", "Threads", "NoNewPrivs", "Seccomp:"} {
				if strings.HasPrefix(line, field) {
					t.Log(v.name, line)
				}
			}
		}
	}
}

// A purge leaves what is the users' own, and nothing else.
func TestPurge(t *testing.T) {
	t.Parallel()
	h := boot(t)
	snapshot := func() []string {
		out := h.must("root", "find", "/etc", "/usr", "/run", "/var", "-xdev", "(",
			// The bookkeeping of others, which notes what was installed or said.
			"-path", "/var/lib/dpkg", "-o", "-path", "/var/log", "-o", "-path", "/run/systemd", "-o", "-path", "/run/user",
			"-o", "-path", "/var/cache", "-o", "-path", "/var/tmp", "-o", "-path", "/run/log", ")", "-prune", "-o", "-print")
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		return lines
	}
	h.must("root", "mkdir", "-p", "/etc/systemd/system/sockets.target.wants") // systemd's own, once it was needed
	before := snapshot()
	h.install("1.0.0")
	h.startSandbox()
	u, s := h.serving(), h.systemUnit("carol")
	s.systemctl("enable", "--now", "bloq-agent@carol.socket")
	s.login("file")
	s.mustToken()
	h.must("root", "systemctl", "stop", "sandbox.service")
	h.must("root", "dpkg", "--purge", "bloq-agent")
	for _, name := range snapshot() {
		_, found := slices.BinarySearch(before, name)
		if !found && !strings.HasPrefix(name, "/var/lib/bloq-agent") {
			t.Errorf("left behind: %s", name)
		}
	}
	if got := h.must("root", "find", "/run/user/"+h.uid("alice"), "-name", "*bloq*", "-not", "-path", "*/systemd/*"); got != "" {
		t.Errorf("left in the runtime directory: %s", got)
	}
	for _, kept := range []string{"/home/alice/.local/state/bloq-agent/profiles.json", "/var/lib/bloq-agent/carol/state/bloq-agent/profiles.json"} {
		if !h.exists(kept) {
			t.Errorf("a user's own state is gone: %s", kept)
		}
	}
	if got := h.must("root", "sh", "-c", "pgrep -a bloq || :"); got != "" {
		t.Errorf("still runs: %s", got)
	}
	for _, v := range []unit{u, s} {
		if got := v.systemctl("list-units", "--no-legend", "--plain", "bloq-agent*"); got != "" {
			t.Errorf("still loaded: %s", got)
		}
	}
}
