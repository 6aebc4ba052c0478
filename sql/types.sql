-- Types.

-- A user's status. Only the first and the last are returned yet; the order is that of the dots on a page.
CREATE TYPE @extschema@.presence_status AS ENUM ('active', 'idle', 'busy', 'inactive');
