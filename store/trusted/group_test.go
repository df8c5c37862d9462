package trusted_test

import (
	"os"
	"testing"

	"bloq-agent/store/trusted"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Ann is user 1000, of group 1000.
func TestWhichGroupIsOnlyOurs(t *testing.T) {
	const (
		ann  = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
		bob  = "bob:x:1001:1001::/home/bob:/bin/sh\n"
		anns = "root:x:0:\nann:x:1000:\n"
	)
	for name, tt := range map[string]struct {
		passwd, group string
		primary, of   int
		want          bool
	}{
		"her own":                           {ann + bob, anns, 1000, 1000, true},
		"her own, and it lists her":         {ann + bob, "ann:x:1000:ann\n", 1000, 1000, true},
		"another one than her primary":      {ann + bob, anns + "bob:x:1001:\n", 1000, 1001, false},
		"her primary one has another name":  {ann + bob, "users:x:1000:\n", 1000, 1000, false},
		"it lists bob":                      {ann + bob, "ann:x:1000:bob\n", 1000, 1000, false},
		"it lists her and bob":              {ann + bob, "ann:x:1000:ann,bob\n", 1000, 1000, false},
		"a second line lists bob":           {ann + bob, "ann:x:1000:\nstaff:x:1000:bob\n", 1000, 1000, false},
		"it is bob's primary one too":       {ann + "bob:x:1001:1000::/:/bin/sh\n", anns, 1000, 1000, false},
		"it is not in the file":             {ann + bob, "root:x:0:\n", 1000, 1000, false},
		"she is not in the file":            {bob, anns, 1000, 1000, false},
		"there are no files":                {"", "", 1000, 1000, false},
		"group 0, which is hers":            {ann, anns, 0, 0, true},
		"group 0, of a user without a name": {"", anns, 0, 0, true},
		"group 0 lists bob":                 {ann + bob, "root:x:0:bob\n", 0, 0, false},
		"group 0 is not hers":               {ann, anns, 1000, 0, false},
		"group 0 without a file":            {"", "", 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			trusted.UseEtc(t, dir)
			for file, content := range map[string]string{"passwd": tt.passwd, "group": tt.group} {
				if content != "" {
					must(t, os.WriteFile(dir+"/"+file, []byte(content), 0o600))
				}
			}
			if got := trusted.OnlyMember(1000, tt.primary, tt.of); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}
