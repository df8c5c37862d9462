package callers

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"bloq-agent/ipc"
)

const (
	// maxName is in bytes, of which JSON makes up to six times as many. A client
	// accepts an answer of 4 MiB.
	maxName = 192
	tick    = 10 * time.Millisecond // the unit of times in /proc
)

// A Process is a caller that is being looked up.
type Process struct {
	pid    int
	uptime time.Duration // of the machine when it connected
	helper bool
	met    time.Time
	looked chan struct{} // closed when what follows is final

	executable, unit, parent string
}

// Name adds to q what is known of p by now.
func (p *Process) Name(q *ipc.Request) {
	select {
	case <-p.looked:
		q.Executable, q.Unit, q.For = p.executable, p.unit, p.parent
	default:
	}
}

// Wait waits until p has been looked up, but not for long.
func (p *Process) Wait() {
	select {
	case <-p.looked:
	case <-time.After(100 * time.Millisecond):
	}
}

func (p *Process) look(proc string) {
	defer close(p.looked)
	caller, err := read(proc, p.pid)
	if err != nil || caller.start > p.uptime+tick {
		return // it has ended, and another process may have its ID
	}
	p.executable, p.unit = bounded(cmp.Or(caller.executable, caller.name)), bounded(caller.unit)
	if !p.helper {
		return
	}
	if parent, err := read(proc, caller.parent); err == nil && parent.start <= caller.start {
		p.parent = bounded(parent.name)
	}
}

type process struct {
	executable, name, unit string
	parent                 int
	start                  time.Duration // of the machine's uptime
}

// read reads stat last: if that is of the process that is meant, so is the rest.
func read(proc string, pid int) (process, error) {
	dir := path.Join(proc, strconv.Itoa(pid))
	executable, _ := os.Readlink(dir + "/exe") // hidden by Landlock
	name, _ := os.ReadFile(dir + "/comm")
	cgroup, _ := os.ReadFile(dir + "/cgroup")
	stat, err := os.ReadFile(dir + "/stat")
	// proc_pid_stat(5): "PID (NAME) STATE PARENT …", where NAME can hold ") ".
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if err != nil || len(fields) < 20 {
		return process{}, errors.Join(err, errors.New("no start time"))
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	start, err := strconv.Atoi(string(fields[19]))
	return process{executable, strings.TrimSuffix(string(name), "\n"), unitOf(string(cgroup)), parent, time.Duration(start) * tick}, err
}

// unitOf returns the last service or scope of systemd in the text of
// /proc/PID/cgroup (cgroups(7)). The hierarchies that systemd uses come last.
func unitOf(cgroup string) (unit string) {
	for part := range strings.FieldsFuncSeq(cgroup, func(c rune) bool { return c == '/' || c == '\n' }) {
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			unit = part
		}
	}
	return unit
}

// bounded returns s as it can be kept and sent: its owner chose it.
func bounded(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxName)], "?")
}
