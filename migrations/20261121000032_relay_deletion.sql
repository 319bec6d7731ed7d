-- Relays can be deleted.
alter domain relay_status drop constraint relay_status_check;
alter domain relay_status add constraint relay_status_check
    check (value in ('active', 'inactive', 'delinquent', 'deleting')) not valid;
alter table activity drop constraint activity_activity_type_check;
alter table activity add constraint activity_activity_type_check check (activity_type in (
    'create_relay', 'update_relay', 'activate_relay', 'deactivate_relay', 'delete_relay',
    'complete_relay_sync', 'fail_relay_sync')) not valid;
