package accounts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestTokenTimes(t *testing.T) {
	for _, tt := range []struct {
		claims      jwt.MapClaims
		iat, expiry int64 // 0: the zero time
	}{
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": 1_800_003_600}, 1_800_000_000, 1_800_003_600},
		{jwt.MapClaims{"exp": 1_800_003_600.0}, 0, 1_800_003_600},
		{jwt.MapClaims{}, 0, 0},
		{jwt.MapClaims{"exp": -1, "iat": 0}, 0, 0},
		{jwt.MapClaims{"exp": 1e15}, 0, 0},
		{jwt.MapClaims{"iat": json.Number("1e400"), "exp": 1_800_003_600}, 0, 1_800_003_600},
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": json.Number("99999999999999999999")}, 1_800_000_000, 0},
		{jwt.MapClaims{"iat": json.Number("-1e30"), "exp": json.Number("9.3e18")}, 0, 0},
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": "tomorrow"}, 1_800_000_000, 0},
		{jwt.MapClaims{"nbf": json.Number("1e400"), "exp": 1_800_003_600}, 0, 1_800_003_600},
		{jwt.MapClaims{"aud": []string{"a", "manager"}, "exp": 1_800_003_600}, 0, 1_800_003_600},
		{jwt.MapClaims{"aud": "a", "exp": 1_800_003_600}, 0, 1_800_003_600},
	} {
		got, err := TokenTimes([]byte(jwtWith(t, tt.claims)))
		if err != nil || unix(got.IssuedAt) != tt.iat || unix(got.Expiry) != tt.expiry {
			t.Errorf("%v: %v, %v", tt.claims, got, err)
		}
	}
	for _, s := range []string{"", "a.b.c", "nonsense", "e30.e30"} {
		if got, err := TokenTimes([]byte(s)); err == nil || strings.Contains(err.Error(), "e30") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// A lifetime is the token's own: clocks that are wrong, here or there, change
// nothing.
func TestLifetime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		claims jwt.MapClaims
		want   time.Duration
	}{
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": 1_800_003_600}, time.Hour},
		{jwt.MapClaims{"iat": 1_500_000_000, "exp": 1_500_001_800}, 30 * time.Minute}, // their clock is years behind
		{jwt.MapClaims{"iat": 2_000_000_000, "exp": 2_000_000_020}, 20 * time.Second}, // or ahead
		{jwt.MapClaims{"exp": 1_800_000_060}, time.Minute},
		{jwt.MapClaims{"exp": 1_700_000_000}, 0}, // dead by all that can be known
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": 1_799_999_999}, 0},
		{jwt.MapClaims{"iat": 1_800_000_000, "exp": 1_900_000_000}, 24 * time.Hour}, // not believed
		{jwt.MapClaims{}, AccessLifetime},
	} {
		if got := Lifetime([]byte(jwtWith(t, tt.claims)), now, AccessLifetime); got != tt.want {
			t.Errorf("%v lives %v, want %v", tt.claims, got, tt.want)
		}
	}
	if got := Lifetime([]byte("opaque"), now, AccountLifetime); got != 12*time.Hour {
		t.Errorf("an opaque token lives %v", got)
	}
}

func FuzzTokenTimesAreNeverAbsurd(f *testing.F) {
	f.Add([]byte(jwtWith(f, jwt.MapClaims{"iat": 1_800_000_000, "exp": 1_800_003_600})))
	f.Add([]byte("eyJhbGciOiJub25lIn0.eyJleHAiOjFlMzB9."))
	f.Fuzz(func(t *testing.T, b []byte) {
		times, err := TokenTimes(b)
		for _, at := range []time.Time{times.IssuedAt, times.Expiry} {
			if !at.IsZero() && (err != nil || at.Year() < 1970 || at.Year() > 9999) {
				t.Fatalf("%q: %v, %v", b, at, err)
			}
		}
		if d := Lifetime(b, time.Unix(1_800_000_000, 0), time.Hour); d < 0 || d > 24*time.Hour {
			t.Fatalf("%q lives %v", b, d)
		}
	})
}
