# Debian's bash reads this file; EL's reads /etc/bashrc. One content for both.
[ -r /etc/bashrc ] && . /etc/bashrc
