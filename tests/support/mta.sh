#!/usr/bin/env bash
# mta.sh postfix|exim|opensmtpd|dovecot CACHE DIR: runs an unpacked MTA in the foreground, in its own mount and process namespace, where /usr
# and /etc show its package and its accounts; nothing of it touches the machine. It ends, with all its processes, when its
# standard input does: so it cannot outlive the test that started it.
# DIR holds what mta.rs wrote: main.cf and master.cf, exim.conf, smtpd.conf or dovecot.conf; and gets log, queue and home/NAME/Maildir.
set -euo pipefail

if [ -z "${GATEPOST_TEST_NAMESPACE:-}" ]; then
  map=()
  [ "$(id -u)" = 0 ] || map=(--map-root-user --map-auto)
  GATEPOST_TEST_NAMESPACE=1 exec unshare "${map[@]}" --mount --propagation private --pid --fork --kill-child "$0" "$@"
fi
kind=$1 root=$2/$1 dir=$3

etc=$dir/etc
mkdir -p "$etc" "$dir/home" "$root/etc"
cp /etc/passwd /etc/group "$etc/"
id=6200
account() { # NAME HOME
  grep -q "^$1:" "$etc/group" || echo "$1:x:$id:" >>"$etc/group"
  grep -q "^$1:" "$etc/passwd" || echo "$1:x:$id:$id::$2:/usr/sbin/nologin" >>"$etc/passwd"
  id=$((id + 1))
}
for system in postfix postdrop Debian-exim opensmtpd opensmtpq dovecot dovenull; do account $system /nonexistent; done
while read -r name; do
  account "$name" "$dir/home/$name"
  mkdir -p "$dir/home/$name"
  chown "$(grep "^$name:" "$etc/passwd" | cut -d: -f3,4)" "$dir/home/$name"
done <"$dir/accounts"
[ "$kind" = exim ] && mkdir -p "$etc/exim4" && cp "$dir/exim.conf" "$etc/exim4/exim4.conf"

mount -t overlay overlay -o "ro,lowerdir=$root/usr:/usr" /usr
mount -t overlay overlay -o "ro,lowerdir=$etc:$root/etc:/etc" /etc
mount -t tmpfs tmpfs /run
mount -t proc proc /proc

# Standard input stays the lifeline and must not reach the daemons.
case $kind in
  postfix)
    mkdir -p "$dir/queue" "$dir/data"
    chown postfix "$dir/data"
    postfix -c "$dir" start-fg </dev/null & ;;
  exim)
    mkdir -p "$dir/queue" "$dir/logs"
    chown Debian-exim:Debian-exim "$dir/queue" "$dir/logs"
    exim4 -bdf -q1s -oP "$dir/exim.pid" </dev/null & ;;
  opensmtpd)
    # Its folders are compiled in.
    mount -t tmpfs -o mode=755 tmpfs /var/lib
    mount -t tmpfs -o mode=755 tmpfs /var/spool
    mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd
    chmod 711 /var/spool/smtpd
    smtpd -d -f "$dir/smtpd.conf" </dev/null & ;;
  dovecot)
    mkdir -p "$dir/mail"
    chown dovecot:dovecot "$dir/mail"
    dovecot -F -c "$dir/dovecot.conf" </dev/null & ;;
esac
cat >/dev/null
