package boot

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// boot/sibling.json has a container's network and the proofs of its dynamic files.
func TestReadSibling(t *testing.T) {
	root := t.TempDir()
	must.Write(t, root, must.Tree{"boot/sibling.json": `{
 "sibling": "envoy",
 "addresses": [{"address": "10.214.0.148", "subnet": "10.214.0.0/24"}],
 "tables": [{
  "from": "10.214.0.148", "table": 101, "gateway": "10.214.0.1", "subnet": "10.214.0.0/24",
  "connected": true, "unreachable": ["10.0.0.0/8", "127.0.0.0/8"]
 }],
 "service": {"address": "10.213.8.53", "subnet": "10.213.0.0/20"},
 "resources": [
  {"name": "routes", "path": "rds/routes.json", "watched": "/tmp/reload/rds",
   "envoy": {"dump": "dynamic_route_configs", "at": ["route_config"], "statistics": "http.routes.rds.routes", "named": "routes"}},
  {"name": "policy", "path": "policy/names.json", "hashed": true},
  {"name": "keys", "path": "keys.json", "signer": true},
  {"name": "notes", "path": "notes.json"}
 ]
}`})

	sibling, err := Read(root)

	must.Succeed(t, err)
	subnet, from := netip.MustParsePrefix("10.214.0.0/24"), netip.MustParseAddr("10.214.0.148")
	service := Address{netip.MustParseAddr("10.213.8.53"), netip.MustParsePrefix("10.213.0.0/20")}
	want := Sibling{
		Name: "envoy", Addresses: []Address{{from, subnet}}, Service: &service,
		Tables: []Table{{
			From: from, ID: 101, Gateway: netip.MustParseAddr("10.214.0.1"), Subnet: subnet, Connected: true,
			Unreachable: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")},
		}},
		Resources: []Resource{
			{"routes", "rds/routes.json", false, false, &EnvoyProof{"dynamic_route_configs", []string{"route_config"}, "http.routes.rds.routes", "", "routes"}, "/tmp/reload/rds"},
			{"policy", "policy/names.json", true, false, nil, ""},
			{"keys", "keys.json", false, true, nil, ""},
			{"notes", "notes.json", false, false, nil, ""},
		},
	}
	if !reflect.DeepEqual(sibling, want) {
		t.Errorf("got %+v", sibling)
	}
}

// An invalid file is an error that names the file and the invalid part.
func TestReadSiblingErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                     "unexpected end of JSON input",
		`[]`:                   "cannot unmarshal array",
		`{}`:                   `unknown sibling ""`,
		`{"sibling": "squid"}`: `unknown sibling "squid"`,
		`{"sibling": "envoy", "addresses": [{"address": "10.214.0.300"}]}`: "10.214.0.300",
		`{"sibling": "envoy", "tables": [{"unreachable": ["10.0.0.0"]}]}`:  "10.0.0.0",
	} {
		root := t.TempDir()
		must.Write(t, root, must.Tree{"boot/sibling.json": text})

		_, err := Read(root)

		path := filepath.Join(root, "boot", "sibling.json")
		if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, expected %q in it", text, err, want)
		}
	}
}
