package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A child process has to execute another program, so the test binary is started again with a scene to play.
const sceneVariable = "FWCTL_TEST_SCENE"

func TestMain(m *testing.M) {
	scene := os.Getenv(sceneVariable)
	if scene == "" {
		os.Exit(m.Run())
	}
	if strings.HasPrefix(scene, dyingIn) {
		if err := playDying(scene); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, play(scene))
	os.Exit(1)
}

// play sets up the network and /tmp of a container and calls serve. It returns only if that fails.
func play(scene string) error {
	runtime.LockOSThread()
	if err := makeInterfaces(); err != nil {
		return err
	}
	owner, sibling, limits := 0, newSibling(), smallLimits()
	sibling.Service, sibling.Limits = &Address{service, agentNet}, &limits
	switch scene {
	case "as nobody":
		owner, sibling = unprivileged, Sibling{Name: "coredns"}
	case "without its network", "on nothing proven":
		sibling.Tables[1].Subnet = prefixes("10.215.0.0/24")[0]
	case "with impossible limits":
		sibling.Limits = &Limits{Subnet: agentNet}
	case "claiming in vain":
		sibling.Service.Subnet = prefixes("10.215.0.0/24")[0]
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, fmt.Sprintf("mode=755,uid=%d", owner)); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	const root = "/tmp/volume"
	if scene != "on nothing proven" {
		if err := makeVolume(root, owner, scene == "on changed files"); err != nil {
			return err
		}
	}
	if scene == "without a recorder" {
		if err := os.Remove(recorderOf(root).command[0]); err != nil {
			return err
		}
	}
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
	if err := unix.Setresgid(owner, owner, owner); err != nil {
		return err
	}
	if err := unix.Setresuid(owner, owner, owner); err != nil {
		return err
	}
	look := "until [ -e /tmp/recorder ]; do sleep 0.01; done; cat /tmp/recorder; cat /proc/$$/status /proc/$$/net/fib_trie; stat -c 'Tmp: %a' /tmp;" +
		"echo Files: $(ulimit -Sn) $(ulimit -Hn); echo Hot: $(cat /tmp/volume/hot/*/*)"
	return serve(root, sibling, []string{shell, "-c", look})
}

// playRecorder says who the recorder is, and what it has, in lines that begin with its name.
const playRecorder = `#!/bin/sh
{ cat /proc/$$/status; echo "Verb: $*"; echo "Socket: $(readlink /proc/$$/fd/3)"; } | sed 's/^/Recorder/' >/tmp/recorder.new
mv /tmp/recorder.new /tmp/recorder
exec sleep 60
`

// makeVolume creates a volume in which set 1 was started before, and whose files may have been changed since.
func makeVolume(root string, owner int, changed bool) error {
	wanted, files := set("1", routes, listeners)
	text, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	if err := writeFile(committedRecord(root), text); err != nil {
		return err
	}
	for path, content := range files {
		if err := writeFile(filepath.Join(root, "hot", path), []byte(content)); err != nil {
			return err
		}
	}
	if err := startGood(root); err != nil {
		return err
	}
	if err := writeFile(recorderOf(root).command[0], []byte(playRecorder)); err != nil {
		return err
	}
	if err := os.Chmod(recorderOf(root).command[0], 0o755); err != nil {
		return err
	}
	if changed {
		if err := writeFile(filepath.Join(root, "hot", routes), []byte(content("x", routes))); err != nil {
			return err
		}
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, owner, owner))
	})
}

// limitFiles starts a child with a soft limit of open files below the hard limit.
const limitFiles = `ulimit -Sn 256 && ulimit -Hn 4096 && exec "$0"`

// start plays a scene in new namespaces, with more privileges than a container has.
func start(t *testing.T, scene string) (stdout, stderr string, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this needs root, to have privileges that can be dropped")
	}
	child := exec.Command("sh", "-c", limitFiles, os.Args[0])
	child.Env = append(os.Environ(), sceneVariable+"="+scene)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID, // as in a container: with the program, the recorder ends
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Credential:   &syscall.Credential{Groups: []uint32{0, 27}},
		AmbientCaps:  []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	}
	var out, talk bytes.Buffer
	child.Stdout, child.Stderr = &out, &talk
	err = child.Run()
	return out.String(), talk.String(), err
}

// serving returns what a sibling's program sees: its status by field, and all its output.
func serving(t *testing.T, scene string) (status map[string]string, text string) {
	t.Helper()
	stdout, stderr, err := start(t, scene)
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

// The program starts as an unprivileged user without groups or capabilities, and can't gain any.
func TestServeDropsPrivileges(t *testing.T) {
	status, _ := serving(t, "as a sibling")
	expectUnprivileged(t, status, "", "65532")
}

func expectUnprivileged(t *testing.T, status map[string]string, who, user string) {
	t.Helper()
	for name, wanted := range map[string]string{
		"Uid":        strings.Join([]string{user, user, user, user}, " "),
		"Gid":        strings.Join([]string{user, user, user, user}, " "),
		"Groups":     "",
		"CapInh":     "0000000000000000",
		"CapPrm":     "0000000000000000",
		"CapEff":     "0000000000000000",
		"CapBnd":     "0000000000000000",
		"CapAmb":     "0000000000000000",
		"NoNewPrivs": "1",
	} {
		if found, there := status[who+name]; !there || found != wanted {
			t.Errorf("%s is %q (%t), expected %q", who+name, found, there, wanted)
		}
	}
}

// The recorder is a process of a user of its own, without any privilege, and with the socket.
func TestServeStartsTheRecorder(t *testing.T) {
	status, _ := serving(t, "as a sibling")
	expectUnprivileged(t, status, "Recorder", "65533")
	if verb, socket := status["RecorderVerb"], status["RecorderSocket"]; verb != "record" || !strings.HasPrefix(socket, "socket:") {
		t.Errorf("it is to %q, with %q", verb, socket)
	}
}

// When the program starts, the network is configured and a claimed address is held again.
func TestServeShapesTheNetworkFirst(t *testing.T) {
	_, text := serving(t, "as a sibling")
	for _, address := range []string{guarded.String(), exempt.String(), service.String()} {
		if !strings.Contains(text, "|-- "+address+"\n") {
			t.Errorf("%s is missing", address)
		}
	}
}

// When the program starts, everybody may write into /tmp, whatever mode the engine gave it.
func TestServeOpensTmp(t *testing.T) {
	if status, _ := serving(t, "as a sibling"); status["Tmp"] != "1777" {
		t.Errorf("its mode is %q", status["Tmp"])
	}
}

// The program may open as many files as its container's hard limit allows, even if fwctl was started with a lower soft
// limit, which Go's runtime would otherwise restore.
func TestServeOpensAllFiles(t *testing.T) {
	if status, _ := serving(t, "as a sibling"); status["Files"] != "4096 4096" {
		t.Errorf("its limits are %q", status["Files"])
	}
}

// The program finds the proven files, even if somebody had changed them.
func TestServePutsBackWhatWasProven(t *testing.T) {
	for _, scene := range []string{"as a sibling", "on changed files"} {
		status, _ := serving(t, scene)

		for _, path := range []string{routes, listeners} {
			said, _, _ := strings.Cut(content("1", path), `,"version_info"`)
			if !strings.Contains(status["Hot"], said) {
				t.Errorf("%s: %s is missing in %s", scene, said, status["Hot"])
			}
		}
		if strings.Contains(status["Hot"], "of set x") {
			t.Errorf("%s: it has %s", scene, status["Hot"])
		}
	}
}

// If any step of serve fails, the program does not start.
func TestServeFailsClosed(t *testing.T) {
	for scene, wanted := range map[string]string{
		"as nobody":              "dropping capability 0 from the bounding set: operation not permitted",
		"on nothing proven":      "the hot files are not what was committed", // before its network, which can't be shaped
		"without its network":    "no interface has an address in 10.215.0.0/24",
		"with impossible limits": "limiting what agents can take needs nftables with connlimit",
		"without a recorder":     "starting the recorder of refusals",
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
