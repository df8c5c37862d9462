package daemon

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"default", "staging", "work"}
	for name, want := range map[string]string{
		"wrok": "work", "wrk": "work", "works": "work", "default1": "default", "dfault": "default", "stagign": "staging",
		"prod": "", "x": "", "": "", "workshop": "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"same", "same", 0}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestParseValues(t *testing.T) {
	if v, err := parseValues("profile=a&min_ttl=5m"); err != nil || v["profile"] != "a" || v["min_ttl"] != "5m" {
		t.Errorf("%v, %v", v, err)
	}
	for _, raw := range []string{"a=1&a=2", "%zz", "a;b"} {
		if v, err := parseValues(raw); err == nil {
			t.Errorf("%q: %v", raw, v)
		}
	}
}
