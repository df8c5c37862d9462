package trusted

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bloq-agent/userns"
)

// etc is where passwd and group are. Tests have their own.
var etc = "/etc"

// ownGroup reports whether nobody but us is in the group.
func ownGroup(gid uint32) bool {
	return !userns.Unknown(uint32(os.Getuid())) && onlyMember(os.Getuid(), os.Getgid(), int(gid))
}

// onlyMember reports whether nobody but the user, whose primary group is primary,
// is in group: it is that one, has the user's name, and lists no other member, as
// on systems with a umask of 002; or it is group 0 without a member, as in
// containers. Only passwd and group are asked, because a directory service could
// add members at any time.
func onlyMember(uid, primary, group int) bool {
	if group != primary {
		return false
	}
	groups := records("group", 4, 2, group)
	if group == 0 {
		return len(groups) > 0 && !slices.ContainsFunc(groups, func(g []string) bool { return g[3] != "" })
	}
	var names []string
	for _, user := range records("passwd", 7, 3, group) {
		if user[2] != strconv.Itoa(uid) {
			return false // another user has the same primary group
		}
		names = append(names, user[0])
	}
	named := false
	for _, g := range groups {
		for member := range strings.SplitSeq(g[3], ",") {
			if member != "" && !slices.Contains(names, member) {
				return false
			}
		}
		named = named || slices.Contains(names, g[0])
	}
	return named
}

// accountName is the name of a user, or the number if passwd has none.
func accountName(uid uint32) string {
	for _, user := range records("passwd", 7, 2, int(uid)) {
		return user[0]
	}
	return strconv.Itoa(int(uid))
}

// maybeRoot reports whether uid may be root's in a user namespace that knows
// neither root nor the overflow user (PrivateUsers= in a user unit). Root and every
// other user look alike there: without this / would belong to another user.
func maybeRoot(uid uint32) bool {
	if uid != userns.Overflow {
		return false
	}
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		var first, outside, count uint64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err != nil {
			return false
		}
		if outside == 0 || first <= userns.Overflow && userns.Overflow < first+count {
			return false
		}
	}
	return true
}

// records are the lines of a file of etc with so many fields, of which the one
// called key is the number.
func records(file string, fields, key, number int) [][]string {
	data, err := os.ReadFile(filepath.Join(etc, file))
	if err != nil {
		return nil
	}
	var found [][]string
	for line := range strings.Lines(string(data)) {
		if r := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(r) == fields && r[key] == strconv.Itoa(number) {
			found = append(found, r)
		}
	}
	return found
}
