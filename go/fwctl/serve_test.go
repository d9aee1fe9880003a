package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A child of the tests becomes another program, so it is this one, started again with a scene to play.
const sceneVariable = "FWCTL_TEST_SCENE"

func TestMain(m *testing.M) {
	scene := os.Getenv(sceneVariable)
	if scene == "" {
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, play(scene))
	os.Exit(1)
}

// play makes the network and the /tmp of a container and serves in it; it returns only when that fails.
func play(scene string) error {
	runtime.LockOSThread()
	if err := makeInterfaces(); err != nil {
		return err
	}
	owner, sibling := 0, newSibling()
	sibling.Service = &Address{service, agentNet}
	switch scene {
	case "as nobody":
		owner, sibling = unprivileged, Sibling{Name: "coredns"}
	case "without its network":
		sibling.Tables[1].Subnet = prefixes("10.215.0.0/24")[0]
	case "claiming in vain":
		sibling.Service.Subnet = prefixes("10.215.0.0/24")[0]
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, fmt.Sprintf("mode=755,uid=%d", owner)); err != nil {
		return err
	}
	const root = "/tmp/volume"
	if sibling.Service != nil {
		if err := writeFile(claimRecord(root), nil); err != nil {
			return err
		}
	}
	if scene == "with a missing program" {
		return serve(root, sibling, []string{"/nowhere/program"})
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		return err
	}
	if err := unix.Setresuid(owner, owner, owner); err != nil {
		return err
	}
	look := "cat /proc/$$/status /proc/$$/net/fib_trie; stat -c 'Tmp: %a' /tmp"
	return serve(root, sibling, []string{shell, "-c", look})
}

// start plays a scene with namespaces of its own, and with more privileges than a container has.
func start(t *testing.T, scene string) (stdout, stderr string, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this needs root, to have privileges that can be dropped")
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), sceneVariable+"="+scene)
	child.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Credential:   &syscall.Credential{Groups: []uint32{0, 27}},
		AmbientCaps:  []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	}
	var out, talk bytes.Buffer
	child.Stdout, child.Stderr = &out, &talk
	err = child.Run()
	return out.String(), talk.String(), err
}

// serving is what the program of a sibling sees: its status by field, and everything as text.
func serving(t *testing.T) (status map[string]string, text string) {
	t.Helper()
	stdout, stderr, err := start(t, "as a sibling")
	if err != nil {
		t.Fatal(err, stderr)
	}
	status = map[string]string{}
	for line := range strings.Lines(stdout) {
		if name, value, found := strings.Cut(line, ":"); found {
			status[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	return status, stdout
}

// The program starts as nobody, in no group, without a capability in any set and with no way to gain one.
func TestServeDropsPrivileges(t *testing.T) {
	status, _ := serving(t)
	for name, wanted := range map[string]string{
		"Name":       "sh",
		"Uid":        "65532 65532 65532 65532",
		"Gid":        "65532 65532 65532 65532",
		"Groups":     "",
		"CapInh":     "0000000000000000",
		"CapPrm":     "0000000000000000",
		"CapEff":     "0000000000000000",
		"CapBnd":     "0000000000000000",
		"CapAmb":     "0000000000000000",
		"NoNewPrivs": "1",
	} {
		if found, there := status[name]; !there || found != wanted {
			t.Errorf("%s is %q (%t), expected %q", name, found, there, wanted)
		}
	}
}

// When the program starts, the network has its shape and a claimed address is held again.
func TestServeShapesTheNetworkFirst(t *testing.T) {
	_, text := serving(t)
	for _, address := range []string{guarded.String(), exempt.String(), service.String()} {
		if !strings.Contains(text, "|-- "+address+"\n") {
			t.Errorf("%s is missing", address)
		}
	}
}

// Everyone may write into /tmp when the program starts, whatever mode the engine has left it with.
func TestServeOpensTmp(t *testing.T) {
	if status, _ := serving(t); status["Tmp"] != "1777" {
		t.Errorf("its mode is %q", status["Tmp"])
	}
}

// A program that can't be served as it should be is not served at all.
func TestServeFailsClosed(t *testing.T) {
	for scene, wanted := range map[string]string{
		"as nobody":              "dropping capability 0 from the bounding set: operation not permitted",
		"without its network":    "no interface has an address in 10.215.0.0/24",
		"claiming in vain":       "no interface has an address in 10.215.0.0/24",
		"with a missing program": "executing /nowhere/program: no such file or directory",
	} {
		t.Run(scene, func(t *testing.T) {
			stdout, stderr, err := start(t, scene)

			if err == nil || stdout != "" || !strings.Contains(stderr, wanted) {
				t.Errorf("got %v, %q, %q", err, stdout, stderr)
			}
		})
	}
}
