package start

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/users"
	"clawker-fw/internal/volume"
)

// A child process has to execute another program, so the test binary is started again with a scene.
const sceneVariable = "FWCTL_TEST_SCENE"

// init keeps a scene on the main thread, whose status the kernel shows for the process.
func init() {
	runtime.LockOSThread()
}

func TestMain(m *testing.M) {
	scene := os.Getenv(sceneVariable)
	if scene == "" {
		os.Exit(m.Run())
	}
	if scene == givenScene {
		for _, file := range GivenSockets() {
			if err := file.SetDeadline(time.Time{}); err == nil { // it fails for what would block
				fmt.Fprint(file, "x")
			}
		}
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, play(scene))
	os.Exit(1)
}

// sceneRoot is the volume of a container in a scene, and signerFolder the folder of its signer's sockets.
const (
	sceneRoot    = "/tmp/volume"
	signerFolder = "/tmp/signer"
)

// sceneOf returns the owner of the volume in a scene, and the container.
func sceneOf(scene string) (owner int, sibling boot.Sibling) {
	limits := nettest.SmallLimits()
	sibling = nettest.NewSibling()
	sibling.Service, sibling.Limits = &boot.Address{Address: nettest.Service, Subnet: nettest.AgentNet}, &limits
	switch scene {
	case "as nobody":
		return users.Readers, boot.Sibling{Name: "coredns"}
	case "without its network", "on nothing proven":
		sibling.Tables[1].Subnet = nettest.Prefixes("10.215.0.0/24")[0]
	case "with impossible limits":
		sibling.Limits = &boot.Limits{Subnet: nettest.AgentNet}
	case "claiming in vain":
		sibling.Service.Subnet = nettest.Prefixes("10.215.0.0/24")[0]
	case "with a signer":
		sibling.Signer = &boot.SignerSettings{Folder: signerFolder}
	}
	return 0, sibling
}

// play sets up the network and /tmp of a container and calls serve. It returns only if that fails.
func play(scene string) error {
	runtime.LockOSThread()
	if err := nettest.MakeInterfaces(); err != nil {
		return err
	}
	owner, sibling := sceneOf(scene)
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, fmt.Sprintf("mode=755,uid=%d", owner)); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	const root = sceneRoot
	if scene != "on nothing proven" {
		if err := makeVolume(root, owner, scene == "on changed files"); err != nil {
			return err
		}
	}
	switch scene {
	case "without helpers":
		if err := os.Remove(filepath.Join(root, "bin", "fwctl")); err != nil {
			return err
		}
	case "with a recorder that ends":
		if err := volume.WriteFile("/tmp/ends", nil); err != nil {
			return err
		}
	}
	if sibling.Service != nil {
		if err := volume.WriteFile(arp.ClaimRecord(root), nil); err != nil {
			return err
		}
	}
	if scene == "with a missing program" {
		return Serve(root, sibling, []string{"/nowhere/program"})
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
	if scene == "to be stopped" {
		go func() {
			for os.Remove("/tmp/ready") != nil {
				time.Sleep(10 * time.Millisecond)
			}
			_ = unix.Kill(os.Getpid(), unix.SIGTERM) // as the engine does
		}()
		return Serve(root, sibling, []string{shell, "-c", "trap 'exit 7' TERM; touch /tmp/ready; while :; do sleep 0.01; done"})
	}
	return Serve(root, sibling, []string{shell, "-c", look})
}

// look is the program, which prints its environment.
const look = `
until [ -e /tmp/recorder ]; do sleep 0.01; done
cat /tmp/recorder
until [ ! -e ` + signerFolder + ` ] || [ -e /tmp/signing ]; do sleep 0.01; done
[ ! -e /tmp/signing ] || { cat /tmp/signing; stat -c 'SignerFolder: %A %u:%g' ` + signerFolder + `; }
sed 's/^/Supervisor/' /proc/1/status
stat -c 'Asked: %a %u' /tmp/supervisor.sock
cat /proc/$$/status /proc/$$/net/fib_trie
stat -c 'Tmp: %a' /tmp
echo Writes: $(readlink /proc/$$/fd/1)
echo Files: $(ulimit -Sn) $(ulimit -Hn)
echo Hot: $(cat /tmp/volume/hot/*/*)
echo Ended: $(ls -d /tmp/once)
echo END
until [ -e /tmp/copied ]; do sleep 0.01; done
`

// playHelper prints the recorder's user and files, in lines that start with its name.
const playHelper = `#!/bin/sh
if [ "$1" = sign ]; then
	{ cat /proc/$$/status; echo "Verb: $*"; echo "Socket: $(readlink /proc/$$/fd/3)"; echo "Status: $(readlink /proc/$$/fd/4)"; echo "Secrets: $(readlink /proc/$$/fd/5)"; echo "Kept: $(readlink /proc/$$/fd/6)"; echo "Rests: $(readlink /proc/$$/fd/7)"; echo "More: $(readlink /proc/$$/fd/8 /proc/$$/fd/9)"; } | sed 's/^/Signer/' >/tmp/signing.new
	mv /tmp/signing.new /tmp/signing
	exec sleep 60
fi
if [ -e /tmp/ends ] && mkdir /tmp/once; then exit 3; fi
{ sed -u '/^END$/q' <&4; touch /tmp/copied; } &
{ cat /proc/$$/status; echo "Verb: $*"; echo "Socket: $(readlink /proc/$$/fd/3)"; echo "Lines: $(readlink /proc/$$/fd/4)"; echo "Answers: $(readlink /proc/$$/fd/5)"; echo "More: $(readlink /proc/$$/fd/6 /proc/$$/fd/7 /proc/$$/fd/8 /proc/$$/fd/9)"; } | sed 's/^/Recorder/' >/tmp/recorder.new
mv /tmp/recorder.new /tmp/recorder
wait
`

var provenFiles = map[string]string{"rds/routes.json": `{"resources":["routes"]}`, "lds/listeners.json": `{"resources":["listeners"]}`}

// makeVolume creates a volume in which set 1 was started before, and whose files may have changed since.
func makeVolume(root string, owner int, changed bool) error {
	want := hot.Commit{Version: hot.Unversioned}
	for path, content := range provenFiles {
		want.Files = append(want.Files, hot.HotFile{Path: path, Digest: hot.DigestOf([]byte(content))})
	}
	text, err := json.Marshal(want)
	if err != nil {
		return err
	}
	if err := volume.WriteFile(hot.RecordPath(root), text); err != nil {
		return err
	}
	for path, content := range provenFiles {
		if err := volume.WriteFile(filepath.Join(root, "hot", path), []byte(content)); err != nil {
			return err
		}
	}
	if err := hot.StartGood(root); err != nil {
		return err
	}
	helper := filepath.Join(root, "bin", "fwctl")
	if err := errors.Join(volume.WriteFile(helper, []byte(playHelper)), os.Chmod(helper, 0o755)); err != nil {
		return err
	}
	if changed {
		if err := volume.WriteFile(filepath.Join(root, "hot", "rds", "routes.json"), []byte("changed")); err != nil {
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
	var talk bytes.Buffer
	stdout, err = startTo(t, scene, &talk)
	return stdout, talk.String(), err
}

func startTo(t *testing.T, scene string, stderr io.Writer) (stdout string, err error) {
	t.Helper()
	must.BeRoot(t, "to have privileges that can be dropped")
	limited, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child := exec.CommandContext(limited, "sh", "-c", limitFiles, os.Args[0])
	child.Env = append(os.Environ(), sceneVariable+"="+scene)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID, // as in a container: with the program, the recorder ends
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Credential:   &syscall.Credential{Groups: []uint32{0, 27}},
		AmbientCaps:  []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	}
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, stderr
	err = child.Run()
	return out.String(), err
}

// served returns a program's status by field, and all its output.
func served(t *testing.T, scene string) (status map[string]string, text string) {
	t.Helper()
	var talk bytes.Buffer
	status, text = servedTo(t, scene, &talk)
	if t.Failed() {
		t.Fatal(talk.String())
	}
	return status, text
}

func servedTo(t *testing.T, scene string, stderr io.Writer) (status map[string]string, text string) {
	t.Helper()
	stdout, err := startTo(t, scene, stderr)
	if err != nil {
		t.Error(err)
	}
	status = map[string]string{}
	for line := range strings.Lines(stdout) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			status[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	return status, stdout
}

// The program starts as an unprivileged user, another one each time, without further groups or capabilities, and
// can't gain any. By then, the network is configured, a claimed address is held again, everybody may write into
// /tmp, whatever its mode from Docker, and the limit of open files is the container's hard limit, even if fwctl
// was started with a lower soft limit, which Go's runtime would otherwise restore. The supervisor belongs to root,
// with only the capabilities to start another user's process and to copy its files. Only root can ask it.
func TestServe(t *testing.T) {
	status, text := served(t, "as a sibling")
	expectUnprivileged(t, status, "", "65532")
	if again, _ := served(t, "as a sibling"); again["Uid"] == status["Uid"] || status["RecorderUid"] == status["Uid"] {
		t.Errorf("%s, %s again, recorder %s", status["Uid"], again["Uid"], status["RecorderUid"])
	}
	for name, want := range map[string]string{
		"SupervisorUid": "0 0 0 0", "SupervisorGroups": "", "SupervisorCapInh": "0000000000000000",
		"SupervisorCapPrm": "00000000000000c1", "SupervisorCapEff": "00000000000000c1", "SupervisorCapBnd": "0000000000000000",
		"SupervisorCapAmb": "0000000000000000", "SupervisorNoNewPrivs": "1", "Asked": "600 0", "Tmp": "1777", "Files": "4096 4096",
	} {
		if got := status[name]; got != want {
			t.Errorf("%s is %q, expected %q", name, got, want)
		}
	}
	for _, address := range []string{nettest.Guarded.String(), nettest.Exempt.String(), nettest.Service.String()} {
		if !strings.Contains(text, "|-- "+address+"\n") {
			t.Errorf("%s is missing", address)
		}
	}
}

func expectUnprivileged(t *testing.T, status map[string]string, who, group string) {
	t.Helper()
	user, _, _ := strings.Cut(status[who+"Uid"], " ")
	if id, err := strconv.Atoi(user); err != nil || id < users.FewestUsers {
		t.Errorf("%s is %s, %v", who, user, err)
	}
	for name, want := range map[string]string{
		"Uid":        strings.Join([]string{user, user, user, user}, " "),
		"Gid":        strings.Join([]string{group, group, group, group}, " "),
		"Groups":     "",
		"CapInh":     "0000000000000000",
		"CapPrm":     "0000000000000000",
		"CapEff":     "0000000000000000",
		"CapBnd":     "0000000000000000",
		"CapAmb":     "0000000000000000",
		"NoNewPrivs": "1",
	} {
		if got, ok := status[who+name]; !ok || got != want {
			t.Errorf("%s is %q (%t), expected %q", who+name, got, ok, want)
		}
	}
}

// The recorder has its own user, no privilege, and only its two sockets and the program's output, also after a
// restart.
func TestServeStartsTheRecorder(t *testing.T) {
	for scene, ended := range map[string]string{"as a sibling": "", "with a recorder that ends": "/tmp/once"} {
		status, _ := served(t, scene)
		expectUnprivileged(t, status, "Recorder", "65533")
		if verb, socket := status["RecorderVerb"], status["RecorderSocket"]; verb != "record" || !strings.HasPrefix(socket, "socket:") {
			t.Errorf("%s: it is to %q, with %q", scene, verb, socket)
		}
		if lines := status["RecorderLines"]; !strings.HasPrefix(lines, "pipe:") || lines != status["Writes"] {
			t.Errorf("%s: it reads what is written to %q from %q", scene, status["Writes"], lines)
		}
		if answers := status["RecorderAnswers"]; !strings.HasPrefix(answers, "socket:") {
			t.Errorf("%s: it answers at %q", scene, answers)
		}
		if more := status["RecorderMore"]; more != "" {
			t.Errorf("%s: it also has %q", scene, more)
		}
		if status["Ended"] != ended {
			t.Errorf("%s: it has ended: %q", scene, status["Ended"])
		}
	}
}

// The signer has its own user and group, no privilege, and only its sockets, in a folder that only the program's
// group can enter, and the files for secrets: one in memory, and one at rest.
func TestServeStartsTheSigner(t *testing.T) {
	status, _ := served(t, "with a signer")
	expectUnprivileged(t, status, "Signer", "65531")
	for name, want := range map[string]string{
		"SignerVerb": "sign /tmp/signer /tmp/volume/hot/inspected/names.json /tmp/volume/hot/signing/intermediates.json",
		"SignerMore": "", "SignerKept": "/memfd:secrets (deleted)", "SignerRests": "/tmp/volume/state/secrets.json", "SignerFolder": "drwx--x--- 0:65532",
	} {
		if got := status[name]; got != want {
			t.Errorf("%s is %q, expected %q", name, got, want)
		}
	}
	if ads, tells := status["SignerSocket"], status["SignerStatus"]; !strings.HasPrefix(ads, "socket:") || !strings.HasPrefix(tells, "socket:") || ads == tells {
		t.Errorf("it has %q and %q", ads, tells)
	}
}

// The program finds the verified files, even after manual changes.
func TestServePutsBackWhatWasProven(t *testing.T) {
	status, _ := served(t, "on changed files")
	for path, content := range provenFiles {
		if !strings.Contains(status["Hot"], content) {
			t.Errorf("%s is missing in %s", path, status["Hot"])
		}
	}
	if strings.Contains(status["Hot"], "changed") {
		t.Errorf("it has %s", status["Hot"])
	}
}

// A stop reaches the program of another user, though the supervisor has no capability to signal it. The container
// ends with the program.
func TestServeStopsTheProgram(t *testing.T) {
	_, stderr, err := start(t, "to be stopped")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, %s", err, stderr)
	}
}

// If any step of serve fails, the program does not start.
func TestServeFailsClosed(t *testing.T) {
	for scene, want := range map[string]string{
		"as nobody":              "operation not permitted",
		"on nothing proven":      "the hot files are not what was committed", // before its network, which can't be shaped
		"without its network":    "no interface has an address in 10.215.0.0/24",
		"with impossible limits": "limiting agents needs more of nf_tables in the kernel (4.18 or later, with connlimit, ",
		"without helpers":        "starting the recorder of refusals",
		"claiming in vain":       "no interface has an address in 10.215.0.0/24",
		"with a missing program": "exec /nowhere/program: no such file or directory",
	} {
		t.Run(scene, func(t *testing.T) {
			stdout, stderr, err := start(t, scene)

			if err == nil || stdout != "" || !strings.Contains(stderr, want) {
				t.Errorf("got %v, %q, %q", err, stdout, stderr)
			}
		})
	}
}
