package trusted

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// etc is where passwd and group are. Tests have their own.
var etc = "/etc"

// ownGroup reports whether nobody but us is in the group: it is our primary one,
// has our name, and lists no other member, as on systems with a umask of 002; or
// it is group 0 without a member, as in containers. Only passwd and group are
// asked, because a directory service could add members at any time.
func ownGroup(gid uint32) bool {
	if int(gid) != os.Getgid() {
		return false
	}
	groups := records("group", 4, 2, strconv.Itoa(int(gid)))
	if gid == 0 {
		return len(groups) > 0 && !slices.ContainsFunc(groups, func(g []string) bool { return g[3] != "" })
	}
	uid := strconv.Itoa(os.Getuid())
	var names []string
	for _, user := range records("passwd", 7, 3, strconv.Itoa(int(gid))) {
		if user[2] != uid {
			return false // another user has the same primary group
		}
		names = append(names, user[0])
	}
	ours := false
	for _, g := range groups {
		for member := range strings.SplitSeq(g[3], ",") {
			if member != "" && !slices.Contains(names, member) {
				return false
			}
		}
		ours = ours || slices.Contains(names, g[0])
	}
	return ours
}

// accountName is the name of a user, or the number if passwd has none.
func accountName(uid uint32) string {
	number := strconv.Itoa(int(uid))
	for _, user := range records("passwd", 7, 2, number) {
		return user[0]
	}
	return number
}

// records are the lines of a file of etc with so many fields, of which the one
// called key has the value.
func records(file string, fields, key int, value string) [][]string {
	data, err := os.ReadFile(filepath.Join(etc, file))
	if err != nil {
		return nil
	}
	var found [][]string
	for line := range strings.Lines(string(data)) {
		if r := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(r) == fields && r[key] == value {
			found = append(found, r)
		}
	}
	return found
}
