package policy

import (
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/reason"
)

// example has every kind of decision, at several depths.
const example = `{"ttl":1,"addresses":{"envoy":"10.213.8.10","other":"10.213.8.11"},"names":{
"a.test":{"at":"envoy"},
"w.test":{"at":"envoy","below":"envoy"},
"below.test":{"below":"envoy"},
"no.w.test":{"at":"deny"},
"deep.w.test":{"below":"deny"},
"again.deep.w.test":{"at":"other","below":"other"},
"silent.w.test":{},
"x-_1.odd-.test":{"at":"envoy"},
"clawker.internal":{"at":"envoy"},
"single":{"at":"envoy"}}}`

func parse(t *testing.T, content string) *List {
	t.Helper()
	list, err := Parse([]byte(content))
	must.Succeed(t, err)
	return list
}

// then is the time of the queries.
var then = time.Unix(1_800_000_000, 0)

// A name has the address of its own `at`, or of the nearest `below`, starting with its own.
func TestDecide(t *testing.T) {
	const envoy, other, refused = "10.213.8.10", "10.213.8.11", ""
	list := parse(t, example)
	for name, want := range map[string]string{
		"a.test":                envoy,
		"x.a.test":              refused,
		"test":                  refused,
		"b.test":                refused,
		"xa.test":               refused,
		"w.test":                envoy,
		"x.w.test":              envoy,
		"y.x.w.test":            envoy,
		"xw.test":               refused,
		"below.test":            envoy,
		"x.below.test":          envoy,
		"no.w.test":             refused,
		"x.no.w.test":           envoy, // nothing is said for below it: the next above decides
		"deep.w.test":           refused,
		"x.deep.w.test":         refused,
		"again.deep.w.test":     other,
		"x.again.deep.w.test":   other,
		"y.x.again.deep.w.test": other,
		"silent.w.test":         envoy,
		"x.silent.w.test":       envoy,
		"single":                envoy,
		"x-_1.odd-.test":        envoy,
		"A.tEST":                envoy,
		"a.test.":               envoy,
		"a.test..":              refused,
		"":                      refused,
		".":                     refused,
		"*.w.test":              refused,
		`x\.y.w.test`:           refused,
		`x\000.w.test`:          refused,
		"é.w.test":              refused,
		"x\n.w.test":            refused,
		label(63) + ".w.test":   envoy,
		label(64) + ".w.test":   refused,
		long(253):               envoy,
		long(253) + ".":         envoy,
		long(254):               refused,
		"10.213.8.10":           refused,
	} {
		decision := list.Decide(name, then)
		text := ""
		if decision.Reason == "" {
			text = decision.Address.String()
		}
		if text != want || (decision.Reason == "") != decision.Address.IsValid() {
			t.Errorf("%q: got %v, expected %q", name, decision, want)
		}
	}
}

// A refusal has a reason. An address with an end is refused from that second on, whatever the names above have.
func TestDecideReasons(t *testing.T) {
	list := parse(t, `{"ttl":1,"addresses":{"envoy":"10.213.8.10"},"names":{
"w.test":{"at":"envoy","below":"envoy"},
"no.w.test":{"at":"deny","below":"deny"},
"ends.w.test":{"at":"envoy","at_until":1800000000,"below":"envoy","below_until":1800000010}}}`)
	for _, test := range []struct {
		name   string
		after  time.Duration
		reason string
	}{
		{"w.test", 0, ""},
		{"other.test", 0, "no-rule"},
		{"x y.w.test", 0, "bad-name"},
		{"no.w.test", 0, "denied"},
		{"x.no.w.test", 0, "denied"},
		{"ends.w.test", -time.Nanosecond, ""},
		{"ends.w.test", 0, "expired"},
		{"x.ends.w.test", 9 * time.Second, ""},
		{"x.ends.w.test", 10 * time.Second, "expired"},
	} {
		if decision := list.Decide(test.name, then.Add(test.after)); decision.Reason != test.reason {
			t.Errorf("%s after %s: got %q, expected %q", test.name, test.after, decision.Reason, test.reason)
		}
	}
}

// A number is added to the address.
func TestDecideNumbers(t *testing.T) {
	list := parse(t, `{"ttl":1,"addresses":{"virtual":"10.213.8.64"},"names":{
"first.test":{"at":"virtual"},
"third.test":{"at":"virtual","at_number":2},
"far.test":{"at":"virtual","at_number":959}}}`)
	for name, want := range map[string]string{
		"first.test": "10.213.8.64", "third.test": "10.213.8.66", "far.test": "10.213.11.255",
	} {
		if decision := list.Decide(name, then); decision.Address.String() != want {
			t.Errorf("%s: got %v, expected %s", name, decision, want)
		}
	}
}

func label(length int) string { return strings.Repeat("x", length) }

// long returns a name below w.test with the given length.
func long(length int) string {
	before := strings.Repeat("x.", length)[:length-len(".w.test")]
	if strings.HasSuffix(before, ".") {
		before = "x" + strings.TrimSuffix(before, ".")
	}
	return before + ".w.test"
}

// Content that clawker-fw never writes is an error with the reason, and never a partial list.
func TestParseErrors(t *testing.T) {
	for content, want := range map[string]string{
		``:                                "EOF",
		`{`:                               "unexpected EOF",
		`[]`:                              "cannot unmarshal array",
		`null`:                            "names is missing",
		`{}`:                              "names is missing",
		`{"ttl":1,"addresses":{}}`:        "names is missing",
		`{"names":null}`:                  "names is missing",
		`{"names":[]}`:                    "cannot unmarshal array",
		`{"names":{}} x`:                  "data after the JSON value",
		`{"names":{}}{"names":{}}`:        "data after the JSON value",
		`{"names":{}}}`:                   "data after the JSON value",
		`{"names":{},"more":1}`:           `unknown field "more"`,
		`{"names":{"a":{"on":""}}}`:       `unknown field "on"`,
		`{"names":{"a":{"at_number":7}}}`: "7 is not the number of an address",
		`{"names":{"a":{"at_until":7}}}`:  "7 is not the end of an address",
		`{"names":{"a":{"at":"deny","at_until":7}}}`:                                  "7 is not the end of an address",
		`{"addresses":{"e":"10.0.0.1"},"names":{"a":{"below":"e","below_until":-7}}}`: "-7 is not the end of an address",
		`{"ttl":-1,"names":{}}`:                                                       "cannot unmarshal number -1",
		`{"ttl":"1","names":{}}`:                                                      "cannot unmarshal string",
		`{"ttl":5e9,"names":{}}`:                                                      "cannot unmarshal number 5e9",
		`{"names":{"":{}}}`:                                                           `"" is not a host name in lower case`,
		`{"names":{"A.test":{}}}`:                                                     `"A.test" is not a host name in lower case`,
		`{"names":{"a":{"at":"envoy"}}}`:                                              `a: addresses has no IPv4 address "envoy"`,
		`{"names":{"a":{"below":"envoy"}}}`:                                           `below a: addresses has no IPv4 address "envoy"`,
		`{"names":{"a":{"at":"DENY"}}}`:                                               `a: addresses has no IPv4 address "DENY"`,
		`{"addresses":{"e":"10.0.0.300"},"names":{}}`:                                 "10.0.0.300",
		`{"addresses":{"e":""},"names":{"a":{"at":"e"}}}`:                             `addresses has no IPv4 address "e"`,
		`{"addresses":{"e":"::1"},"names":{"a":{"at":"e"}}}`:                          `addresses has no IPv4 address "e"`,
		`{"addresses":{"e":"::ffff:1.2.3.4"},"names":{"a":{"at":"e"}}}`:               `addresses has no IPv4 address "e"`,
	} {
		if list, err := Parse([]byte(content)); err == nil || list != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, expected %q", content, list, err, want)
		}
	}
}

// Until the end of observing, undecided names have Envoy's address, if they can be public.
func TestObserving(t *testing.T) {
	observed := strings.Replace(example, `{"ttl":1,`, `{"ttl":1,"observe_until":1800000060,`, 1)
	observed = strings.Replace(observed, `"names":{`, `"names":{"local":{"below":"no-rule"},"exact.test":{"at":"no-rule"},`, 1)
	list := parse(t, observed)
	for name, want := range map[string]Decision{
		"b.test":        {Address: list.observed.address, Observed: true},
		"x.a.test.":     {Address: list.observed.address, Observed: true},
		"y.exact.test":  {Address: list.observed.address, Observed: true},
		"exact.test":    {Reason: reason.NoRule},
		"x.local":       {Reason: reason.NoRule},
		"local":         {Reason: reason.NoRule},
		"no.w.test":     {Reason: reason.Denied},
		"x.deep.w.test": {Reason: reason.Denied},
		"other":         {Reason: reason.NoRule},
		"10.0.0.1":      {Reason: reason.NoRule},
		"x.t":           {Reason: reason.NoRule},
		"x y.test":      {Reason: reason.BadName},
	} {
		if got := list.Decide(name, then); got != want {
			t.Errorf("%s: %+v and not %+v", name, got, want)
		}
		if got := list.Decide(name, time.Unix(1_800_000_060, 0)); got.Observed {
			t.Errorf("%s after the end: %+v", name, got)
		}
	}
	if got := list.Decide("a.test", then); got.Observed || !got.Address.IsValid() {
		t.Errorf("a name with a rule: %+v", got)
	}
	if _, err := Parse([]byte(`{"ttl":1,"observe_until":1800000060,"addresses":{},"names":{}}`)); err == nil {
		t.Error("a list without Envoy's address is observed")
	}
}
