package profile

import (
	"os"
	"testing"
)

// A logout that cannot be recorded, and leaves the secrets where they are, ends the
// login of this daemon all the same: nothing opens it again.
func TestALogoutThatIsNotOnRecordLasts(t *testing.T) {
	place := newPlace(t)
	s := place.open(t)
	p := s.serve(t, "work", "file", "refresh token")
	do(t, os.Rename(place.state(), place.state()+".old"))
	do(t, os.CopyFS(place.state(), os.DirFS(place.state()+".old")))
	if err := p.Forget(); err == nil {
		t.Fatal("it is on record")
	}
	if p.record().Store == "" {
		t.Fatal("it is on record")
	}
	p.reopen() // as an unlock does
	if st := p.state.Load(); st.phase != Absent {
		t.Errorf("phase %d, %v", st.phase, st.problem)
	}
	do(t, os.RemoveAll(place.state()))
	do(t, os.Rename(place.state()+".old", place.state()))
	do(t, p.Forget()) // the hint
	if _, known := s.records.Lookup("work"); known {
		t.Error("the record is left")
	}
}
