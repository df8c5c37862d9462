package version

import (
	"os"
	"testing"
)

func TestTheNumberIsThatOfVERSION(t *testing.T) {
	b, err := os.ReadFile("../../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if number+"\n" != string(b) {
		t.Errorf("version.go says %q, VERSION %q", number, b)
	}
}
