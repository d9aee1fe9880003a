package serving

import (
	"reflect"
	"testing"

	"clawker-fw/internal/boot"
)

// Each sibling has its own implementation of Program.
func TestSiblingProgram(t *testing.T) {
	if _, ok := Of(boot.Sibling{Name: "envoy"}, nil).(envoy); !ok {
		t.Error("envoy is not asked as Envoy")
	}
	sibling := boot.Sibling{Name: "coredns", Resources: policyResources}
	wanted := coredns{"/tmp", "127.0.0.1:53", policyResources}
	if program := Of(sibling, nil); !reflect.DeepEqual(program, wanted) {
		t.Errorf("coredns is asked as %#v", program)
	}
}
