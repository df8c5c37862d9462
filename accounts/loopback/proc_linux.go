package loopback

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// An entry is a line of /proc/net/tcp or tcp6; see proc_net(5).
type entry struct {
	Socket
	local, remote netip.AddrPort
	state         uint64
}

// accepts reports whether a listener accepts connections to the address at.
func (e entry) accepts(at netip.AddrPort) bool {
	if e.local.Port() != at.Port() {
		return false
	}
	a := e.local.Addr()
	return a == at.Addr() || a.IsUnspecified() && (a.Is6() || at.Addr().Is4())
}

// listed returns the sockets in the kernel's lists that want picks, by inode. With
// ProcSubset=pid of systemd.exec(5) there is no /proc/net.
func listed(want func(entry) bool) ([]Socket, error) {
	var list []Socket
	for _, path := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(path)
		if os.IsNotExist(err) && strings.HasSuffix(path, "6") {
			break // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		list, err = parse(f, want, list)
		_ = f.Close() // it was read
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	slices.SortFunc(list, func(a, b Socket) int { return cmp.Compare(a.Inode, b.Inode) })
	return list, nil
}

// parse appends to list. The first line of r has the names of the columns.
func parse(r io.Reader, want func(entry) bool, list []Socket) ([]Socket, error) {
	lines := bufio.NewScanner(r)
	lines.Scan()
	for lines.Scan() {
		e, err := parseLine(lines.Text())
		if err != nil {
			return nil, err
		}
		if !want(e) {
			continue
		}
		if e.Inode == 0 {
			return nil, errOrphan
		}
		list = append(list, e.Socket)
	}
	return list, lines.Err()
}

func parseLine(line string) (entry, error) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return entry{}, errAnswer
	}
	local, err1 := parseAddr(f[1])
	remote, err2 := parseAddr(f[2])
	state, err3 := strconv.ParseUint(f[3], 16, 8)
	uid, err4 := strconv.ParseUint(f[7], 10, 32)
	inode, err5 := strconv.ParseUint(f[9], 10, 32)
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return entry{}, err
	}
	return entry{Socket{uint32(uid), uint32(inode)}, local, remote, state}, nil
}

// parseAddr reads an address, in words of the machine's byte order, and a port.
func parseAddr(s string) (netip.AddrPort, error) {
	text, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, errAnswer
	}
	for i := 0; i < len(b); i += 4 {
		ourByte.PutUint32(b[i:], theNetwork.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	a, ok := netip.AddrFromSlice(b)
	if err != nil || !ok {
		return netip.AddrPort{}, errAnswer
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}
