package daemon

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

const (
	maxCallers = 32  // programs that are remembered
	maxName    = 256 // bytes of an executable's path or a unit's name
	// knownFor is how long a process is taken for what it was: one that asks a
	// hundred times a second is looked up once in that time.
	knownFor = time.Second
	// maxLooks is how many processes are looked up in a second. The kernel makes
	// the directory of each in /proc and clears it away when the process ends,
	// which costs a helper 50 µs of its 1.3 ms: nothing to a person, but too much
	// for a script that asks a hundred times a second.
	maxLooks = 20
)

// A program is who called, as far as /proc says. It is for people to read, and
// decides nothing: any program of the same user can run the helper.
type program struct {
	executable string // its path or its name; "" if nobody looked, or the process had gone by then
	unit       string // of systemd
}

// callers remembers the programs that asked last.
type callers struct {
	mu     sync.Mutex
	byWho  map[program]*ipc.Caller
	byPID  map[int]knownProcess
	looks  int // in the second that began at second
	second time.Time
}

type knownProcess struct {
	program
	at time.Time
}

// note counts one request.
func (c *callers) note(pid int, kind string, now time.Time) {
	who := c.who(pid, now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byWho == nil {
		c.byWho = map[program]*ipc.Caller{}
	}
	caller := c.byWho[who]
	if caller == nil {
		if len(c.byWho) >= maxCallers {
			c.forgetOldestLocked()
		}
		caller = &ipc.Caller{Executable: who.executable, Unit: who.unit, Requests: map[string]uint64{}}
		c.byWho[who] = caller
	}
	caller.PID, caller.LastSeen = pid, now
	caller.Requests[kind]++
}

func (c *callers) forgetOldestLocked() {
	var oldest program
	var at time.Time
	for who, caller := range c.byWho {
		if at.IsZero() || caller.LastSeen.Before(at) {
			oldest, at = who, caller.LastSeen
		}
	}
	delete(c.byWho, oldest)
}

// who looks a process up, unless it has just been.
func (c *callers) who(pid int, now time.Time) program {
	c.mu.Lock()
	known, ok := c.byPID[pid]
	ok = ok && now.Sub(known.at) < knownFor
	spent := !ok && !c.mayLookLocked(now)
	c.mu.Unlock()
	switch {
	case ok:
		return known.program
	case spent:
		return program{}
	}
	who := lookUp(pid)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byPID) >= maxCallers || c.byPID == nil {
		c.byPID = map[int]knownProcess{}
	}
	c.byPID[pid] = knownProcess{who, now}
	return who
}

func (c *callers) mayLookLocked(now time.Time) bool {
	if d := now.Sub(c.second); d < 0 || d >= time.Second {
		c.second, c.looks = now, 0
	}
	c.looks++
	return c.looks <= maxLooks
}

// list is who asked, the last one first.
func (c *callers) list() []ipc.Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]ipc.Caller, 0, len(c.byWho))
	for _, caller := range c.byWho {
		shown := *caller
		shown.Requests = maps.Clone(caller.Requests)
		list = append(list, shown)
	}
	slices.SortFunc(list, func(a, b ipc.Caller) int {
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.Executable, b.Executable))
	})
	return list
}

// lookUp asks /proc. A process that has gone is nobody.
//
// Under Landlock the kernel shows us no more of another process than what
// everybody may see, and its executable is not among that; what it calls itself
// is (proc_pid_comm(5)).
func lookUp(pid int) program {
	proc := "/proc/" + strconv.Itoa(pid)
	executable, err := os.Readlink(proc + "/exe")
	if errors.Is(err, fs.ErrPermission) {
		var comm []byte
		comm, err = os.ReadFile(proc + "/comm")
		executable = strings.TrimSuffix(string(comm), "\n")
	}
	if err != nil {
		return program{}
	}
	cgroup, _ := os.ReadFile(proc + "/cgroup") // none is no unit
	return program{executable: bounded(executable), unit: bounded(unitOf(string(cgroup)))}
}

// unitOf is the innermost service or scope of systemd in the text of
// /proc/PID/cgroup (cgroups(7)): of the unified hierarchy, else of systemd's own.
func unitOf(cgroup string) string {
	unit := ""
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		parts := strings.Split(fields[2], "/")
		for _, p := range slices.Backward(parts) {
			if strings.HasSuffix(p, ".service") || strings.HasSuffix(p, ".scope") {
				if fields[1] == "" {
					return p
				}
				unit = p
				break
			}
		}
	}
	return unit
}

// bounded is s as it can be kept and sent: its owner chose it.
func bounded(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxName)], "?")
}

// changes are the routes that change what is kept. Who asks for one is logged.
var changes = map[string]bool{
	ipc.RouteAdopt: true, ipc.RouteForget: true, ipc.RouteLock: true,
	ipc.RouteUnlock: true, ipc.RouteProtect: true, ipc.RouteStore: true,
}

// heard remembers who asks. /proc is read when the answer is on its way, so
// that nobody waits for that; for a change before it, because that is what the
// log is for.
func (d *Daemon) heard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := server.PeerOf(r.Context())
		switch {
		case r.Method == http.MethodPost && changes[r.URL.Path]:
			who, seen := lookUp(peer.PID), &audit{ResponseWriter: w}
			// Deferred, because a handler may break the connection by a panic.
			defer func() { d.logChange(r, peer, who, seen) }()
			d.callers.note(peer.PID, kindOf(r), time.Now())
			h.ServeHTTP(seen, r)
		case r.URL.Path == ipc.RouteEvents: // it goes on for hours
			d.callers.note(peer.PID, kindOf(r), time.Now())
			h.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r)
			_ = http.NewResponseController(w).Flush() // the peer may have gone
			d.callers.note(peer.PID, kindOf(r), time.Now())
		}
	})
}

// kindOf is a word for the route of r. Its number is bounded, whatever peers
// ask for.
func kindOf(r *http.Request) string {
	switch name := strings.TrimPrefix(r.URL.Path, ipc.RouteDialect); {
	case name != r.URL.Path:
		if _, known := dialect.Lookup(name); known {
			return name
		}
	case isRoute[r.URL.Path]:
		return strings.TrimPrefix(r.URL.Path, "/v1/")
	}
	return "unknown"
}

var isRoute = func() map[string]bool {
	routes := map[string]bool{}
	for _, r := range []string{
		ipc.RouteToken, ipc.RouteAuth, ipc.RouteStatus, ipc.RouteCallers, ipc.RouteEvents, ipc.RouteRefresh,
		ipc.RouteAdopt, ipc.RouteForget, ipc.RouteLock, ipc.RouteUnlock, ipc.RouteProtect, ipc.RouteStore,
	} {
		routes[r] = true
	}
	return routes
}()

func (d *Daemon) logChange(r *http.Request, peer server.Peer, who program, seen *audit) {
	level := zerolog.InfoLevel
	if seen.question {
		level = zerolog.DebugLevel
	}
	// Status 0 means that the connection was broken.
	e := d.log.WithLevel(level).Str("route", kindOf(r)).Int("status", seen.status).
		Int("peer_pid", peer.PID).Str("peer_exe", who.executable).Str("peer_unit", who.unit)
	if seen.profile != "" {
		e = e.Str("profile", seen.profile)
	}
	if seen.code != "" {
		e = e.Str("code", string(seen.code))
	}
	e.Msg("a change was asked for")
}

func (d *Daemon) handleCallers(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery != "" {
		fail(w, badRequest("this route has no parameters"))
		return
	}
	server.JSON(w, http.StatusOK, ipc.Callers{Callers: d.callers.list(), Refused: d.refusals.count()})
}
